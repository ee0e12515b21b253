"""Every part imports only what its extra installs; the SDK and its commands make do with the base."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from distribution import installed
from imports import FOLDERS, imported, is_within, modules
from packaging.utils import canonicalize_name

from innerloop_command.app import InnerloopCommands

EXTRAS = {
    "innerloop": [],
    "innerloop_command": [],
    "innerloop_command.bench": ["bench"],
    "innerloop_command.demo": ["all"],
    "innerloop_command.signing": ["server-base"],
    "innerloop_trainer": ["trainer"],
    "innerloop_trainer.data.audio": ["trainer", "speech"],
    "innerloop_trainer.encoders": ["trainer", "images"],
    "innerloop_trainer.onnx_export": ["trainer", "onnx"],
    "innerloop_trainer.tracking.ml_flow": ["trainer", "mlflow"],
    "innerloop_trainer.tracking.weights_and_biases": ["trainer", "wandb"],
    "innerloop_trainer.tuning": ["trainer", "tune"],
    "innerloop_server": ["server"],
    "innerloop_server.adaptations.stores.redis": ["server", "redis"],
    "innerloop_server.models.mirror": ["server", "s3"],
    "innerloop_server.models.object_store": ["server", "s3"],
    "innerloop_server.engine.onnx": ["onnx-server"],
    "innerloop_server.engine.onnx.accelerator": ["onnx-server", "onnx"],
    "innerloop_server.engine.onnx.task_graphs": ["onnx"],
}
SDK_NEEDS = {"google", "grpc", "grpc_status", "numpy", "tenacity"}
LEARNER_NEEDS = {"torch", "numpy", "safetensors"}
ENCODERS_NEED = {"numpy", "onnxruntime", "tokenizers"}
SIGNATURES_NEED = {"cryptography"}
MEDIA_NEEDS = {"numpy", "PIL", "pillow_heif", "soundfile", "soxr"}

ONLY_BASE = """
import json, sys

sys.modules.update(dict.fromkeys(json.loads(sys.argv.pop(1))))
"""


def not_installed_by(distributions):
    """Top-level modules that this environment has, but one with only these distributions would not have."""
    return {
        module
        for module, owners in packages_distributions().items()
        if module not in FOLDERS and not {canonicalize_name(owner) for owner in owners} & distributions
    }


def top_level(source):
    return {name.partition(".")[0] for name in imported(source)}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_part_imports_only_what_its_extra_installs(package):
    absent = not_installed_by(installed("innerloop", EXTRAS[package]))
    assert "pytest" in absent
    others = [other for other in EXTRAS if is_within(other, package) and other != package]
    missing = {
        module: top_level(file.read_text()) & absent
        for module, file in modules()
        if is_within(module, package) and not any(is_within(module, other) for other in others)
    }
    assert missing
    assert not any(missing.values()), missing


def test_the_learner_needs_tensors_and_files_of_tensors_only():
    for module, file in modules():
        if is_within(module, "innerloop_learner"):
            needs = LEARNER_NEEDS
            if is_within(module, "innerloop_learner.encoders") or module == "innerloop_learner.run_limit":
                needs = ENCODERS_NEED
            if is_within(module, "innerloop_learner.media"):
                needs = MEDIA_NEEDS
            if module == "innerloop_learner.signatures":
                needs = SIGNATURES_NEED
            assert top_level(file.read_text()) <= {*needs, *sys.stdlib_module_names, "innerloop_learner"}, module


def test_the_sdk_needs_grpc_arrays_and_retries_only():
    for module, file in modules():
        if is_within(module, "innerloop"):
            assert top_level(file.read_text()) <= {*SDK_NEEDS, *sys.stdlib_module_names, "innerloop"}, module


def run_with(extras, code, *arguments):
    absent = not_installed_by(installed("innerloop", extras))
    assert "torch" in absent
    command = [sys.executable, "-c", ONLY_BASE + code, json.dumps(sorted(absent)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_with_the_base_only(code, *arguments):
    return run_with([], code, *arguments)


def test_the_sdk_imports_with_the_base_only():
    result = run_with_the_base_only(
        "import innerloop; print(innerloop.Client.__name__, innerloop.AsyncClient.__name__)"
    )
    assert (result.stdout, result.stderr) == ("Client AsyncClient\n", "")


def test_the_list_of_commands_is_shown_with_the_base_only():
    result = run_with_the_base_only("from innerloop_command import main; main()", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(name in result.stdout for name in InnerloopCommands.sources)


@pytest.mark.parametrize("name", [name for name, source in InnerloopCommands.sources.items() if not source.extra])
def test_the_client_commands_work_with_the_base_only(name):
    result = run_with_the_base_only("from innerloop_command import main; main()", name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage" in result.stdout


@pytest.mark.parametrize("extras", [["server-base"], ["onnx-server"]])
def test_the_server_says_what_to_install_to_compute_and_runs_graphs_without_pytorch(extras, tmp_path):
    result = run_with(
        extras,
        "import innerloop_server.server, innerloop_server.frontend.child, innerloop_server.healthcheck\n"
        "from innerloop_server.make_engine import make_engine\n"
        "from innerloop_server.settings import load_settings\n"
        "print(type(make_engine(load_settings({'models': sys.argv[1], 'device': 'cpu'}))).__name__)",
        str(tmp_path),
    )
    assert result.stdout == ("EncodingEngine\n" if extras == ["onnx-server"] else "")
    assert ('pip install "innerloop[onnx-server]"' in result.stderr) == (extras == ["server-base"])


def test_the_load_generator_names_its_extra_where_only_the_base_is_installed():
    result = run_with_the_base_only("from innerloop_command import main; main()", "bench", "model")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert 'pip install "innerloop[bench]"' in result.stderr


def test_the_command_of_the_server_is_part_of_innerloop(tmp_path):
    command = [sys.executable, "-m", "innerloop_command", "serve", "--models", tmp_path, "--port", "-1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("innerloop serve: port: ")
