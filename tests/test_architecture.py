"""Imports go one way: trainer -> learner <- server, and the server takes nothing but the stubs from the SDK."""

import ast

import pytest
from imports import FOLDERS, imported, is_within, modules

MAY_IMPORT = {
    "innerloop": ["innerloop"],
    # Commands of trainer and server are known by the names of their modules, and imported when they are used.
    "innerloop_command": ["innerloop_command", "innerloop"],
    "innerloop_command.demo": ["innerloop_command", "innerloop", "innerloop_trainer", "innerloop_learner"],
    "innerloop_command.signing": ["innerloop_command", "innerloop_learner"],
    "innerloop_learner": ["innerloop_learner"],
    "innerloop_trainer": ["innerloop_trainer", "innerloop_learner"],
    "innerloop_server": ["innerloop_server", "innerloop_learner", "innerloop.v1"],
}


def wrong_imports(module, source):
    """Imports of Innerloop's own packages that the rules forbid to a module."""
    rule = max((package for package in MAY_IMPORT if is_within(module, package)), key=len)
    own = {name for name in imported(source) if any(is_within(name, package) for package in FOLDERS)}
    return sorted(name for name in own if not any(is_within(name, allowed) for allowed in MAY_IMPORT[rule]))


@pytest.mark.parametrize(("module", "file"), [pytest.param(*found, id=found[0]) for found in modules()])
def test_imports_go_one_way(module, file):
    assert wrong_imports(module, file.read_text()) == []


TALKS_TO_PEOPLE = ("typer", "rich", "click")
"""Packages that parse what people type and print what they read."""


@pytest.mark.parametrize(
    ("module", "file"),
    [
        pytest.param(*found, id=found[0])
        for found in modules()
        if is_within(found[0], "innerloop_trainer") and not is_within(found[0], "innerloop_trainer.cli")
    ],
)
def test_the_trainer_is_a_library_that_prints_nothing(module, file):
    del module
    source = file.read_text()
    assert not [name for name in imported(source) if any(is_within(name, package) for package in TALKS_TO_PEOPLE)]
    assert not printing(source)


def printing(source):
    """Lines of a module that call `print` or mention standard output or error."""
    streams = {"stdout", "stderr", "__stdout__", "__stderr__"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr in streams)
    ]


def test_printing_is_found():
    assert printing("print('x')") == printing("import sys;sys.stderr.write('x')") == [1]
    assert not printing("def f(printed):\n    return printed.stream")


def test_every_source_file_is_examined():
    examined = {file for _, file in modules()}
    assert examined == {file for folder in FOLDERS.values() for file in folder.rglob("*.py")}
    assert {module.partition(".")[0] for module, _ in modules()} == set(FOLDERS)


COMPUTES_BY_TORCH = ("innerloop_server.engine.pytorch",)
"""Packages of the server that need PyTorch."""

LEARNER_WITHOUT_TORCH = {
    f"innerloop_learner.{name}"
    for name in (
        *(
            "calibration",
            "calibration.intervals",
            "calibration.logits",
            "calibration.record",
            "diagnosis",
            "disk",
            "host_memory",
            "manifest",
            "regular_file",
            "run_limit",
            "self_contained",
            "settings",
            "signatures",
            "spec",
            "traits",
            "zoo",
        ),
        *("encoders", "encoders.arrays", "encoders.audio", "encoders.encoder", "encoders.errors"),
        *("encoders.images", "encoders.open"),
        *("encoders.packed_texts", "encoders.session", "encoders.spec", "encoders.texts"),
        *("media", "media.audio", "media.audio_formats", "media.formats", "media.images"),
    )
}
CHOOSES, TORCH_ENGINE = "innerloop_server.make_engine", "innerloop_server.engine.pytorch.engine"
"""The one module that imports what computes by PyTorch from outside of it, late, and what it imports."""


SERVER_LAYERS = {
    "domain": [],
    "backends": [],
    "settings": ["backends"],
    "observability": [],
    "ipc": [],
    "engine": ["domain", "ipc", "backends"],
    "models": ["domain", "engine"],
    "adaptations": ["domain", "engine", "observability"],
    "scheduling": ["domain", "engine", "observability"],
    "serving": ["domain", "engine", "models", "adaptations", "scheduling", "observability"],
    "identity": ["domain"],
    "transport.codec": ["domain"],
    "transport.grpc": ["domain", "serving", "transport.codec", "identity", "settings", "observability"],
    "frontend": ["domain", "serving", "transport.grpc", "ipc", "settings", "observability"],
}
"""What each package of the server may import of the others; `server` and `commands` put all of them together."""


def layer_of(module):
    """The package of the server that a module belongs to; its own name if it belongs to none."""
    path = module.removeprefix("innerloop_server").lstrip(".").split(".")
    return ".".join(path[:2]) if path[0] == "transport" else path[0]


def test_packages_of_the_server_import_only_what_lies_below_them():
    wrong = [
        f"{module} imports {name}"
        for module, file in modules()
        if is_within(module, "innerloop_server") and (allowed := SERVER_LAYERS.get(layer_of(module))) is not None
        for name in imported(file.read_text())
        if is_within(name, "innerloop_server") and layer_of(name) not in (layer_of(module), *allowed)
    ]
    assert not wrong


def folder_of(module, file):
    """The folder that a module lies in; files right below a package stand for themselves."""
    return module if file.name == "__init__.py" or module.count(".") == 1 else module.rpartition(".")[0]


def test_no_imports_between_folders_go_in_a_circle():
    files = dict(modules())
    needs = {folder_of(*found): set() for found in files.items()}
    for module, file in files.items():
        for name in imported(file.read_text()):
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name:
                needs[folder_of(module, file)].add(folder_of(name, files[name]))
    left = {folder: needed - {folder} for folder, needed in needs.items()}
    while lowest := {folder for folder, needed in left.items() if not needed}:
        left = {folder: needed - lowest for folder, needed in left.items() if folder not in lowest}
    assert not left


def computes_by_torch(module):
    return any(is_within(module, package) for package in COMPUTES_BY_TORCH)


@pytest.mark.parametrize(
    ("module", "file"),
    [
        pytest.param(*found, id=found[0])
        for found in modules()
        if is_within(found[0], "innerloop_server") and not computes_by_torch(found[0])
    ],
)
def test_the_server_needs_pytorch_only_where_it_computes_by_it(module, file):
    names = imported(file.read_text())
    assert not needing_torch(names)
    asked = {name.rpartition(".")[0] for name in names if computes_by_torch(name)}
    assert asked == ({TORCH_ENGINE} if module == CHOOSES else set())


def test_what_a_server_without_pytorch_needs_of_the_learner_needs_none():
    examined = {module: file for module, file in modules() if module in LEARNER_WITHOUT_TORCH}
    assert examined.keys() == LEARNER_WITHOUT_TORCH
    for file in examined.values():
        assert not needing_torch(imported(file.read_text()))


def needing_torch(names):
    """Those of some imports that PyTorch is needed for, the server's own apart."""
    return [
        name
        for name in names
        if is_within(name, "torch")
        or is_within(name, "safetensors")
        or (is_within(name, "innerloop_learner") and not any(is_within(name, light) for light in LEARNER_WITHOUT_TORCH))
    ]


UNTYPED = ("pickle", "marshal", "shelve", "multiprocessing", "concurrent.futures.ProcessPoolExecutor")
"""What would let one process hand objects, and so code, to another."""


@pytest.mark.parametrize(
    ("module", "file"),
    [pytest.param(*found, id=found[0]) for found in modules() if found[0].startswith("innerloop_server")],
)
def test_the_server_pickles_nothing(module, file):
    del module
    assert not [name for name in imported(file.read_text()) if any(is_within(name, package) for package in UNTYPED)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("innerloop.client", "import innerloop_learner"),
        ("innerloop.client", "def f():\n    from innerloop_command import app"),
        ("innerloop_command.client_commands", "import innerloop_trainer.cli.app"),
        ("innerloop_command.client_commands", "def f():\n    from innerloop_learner import media"),
        ("innerloop_command.demo.command", "from innerloop_server import settings"),
        ("innerloop_learner.tasks", "import innerloop_trainer.seeds as seeds"),
        ("innerloop_learner.tasks", "from innerloop_server.domain.errors import ServerError"),
        ("innerloop_learner.tasks", "from innerloop.v1 import tensor_pb2"),
        ("innerloop_trainer.runs.training", "if TYPE_CHECKING:\n    from innerloop_server import settings"),
        ("innerloop_trainer.runs.training", "import innerloop"),
        ("innerloop_server.server", "from innerloop_trainer import data"),
        ("innerloop_server.server", "from innerloop import Client"),
        ("innerloop_server.server", "from innerloop import v1, Client"),
        ("innerloop_server.server", "import innerloop_command.app"),
        ("innerloop_server.server", "from importlib import import_module\nimport_module('innerloop_trainer.data')"),
    ],
)
def test_an_import_the_wrong_way_is_found(module, source):
    assert len(wrong_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("innerloop_command.demo.command", "from innerloop_trainer import data\nfrom innerloop import Client"),
        ("innerloop_learner", "import torch\nfrom innerloop_learner.tasks import Support"),
        ("innerloop_trainer.runs.training", "from innerloop_learner import Learner"),
        ("innerloop_server.server", "import innerloop.v1.tensor_pb2\nfrom innerloop.v1 import tensor_pb2"),
    ],
)
def test_an_import_the_right_way_is_let_pass(module, source):
    assert wrong_imports(module, source) == []


def test_a_relative_import_is_refused():
    with pytest.raises(ValueError, match="line 1: relative"):
        imported("from ..innerloop_server import settings")
