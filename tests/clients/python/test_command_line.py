"""The `innerloop` command: what it lists, what it says when something is missing, and its client for the shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted_server import bad_request
from typer.testing import CliRunner

from innerloop import Client
from innerloop.v1 import model_pb2
from innerloop_command.app import InnerloopCommands, app
from innerloop_command.media_folders import IMAGES


@pytest.fixture
def animals(tmp_path):
    """A folder with two folders of two images."""
    for index, name in enumerate(["cat/1.png", "cat/2.JPG", "dog/1.png", "dog/2.jpeg"]):
        file = tmp_path / "animals" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), index, np.uint8)).save(file)
    return tmp_path / "animals"


def python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


WITHOUT = "import sys; sys.modules['{}'] = None; from innerloop_command import main; main()"


def test_help_lists_every_command_without_importing_torch():
    result = python(WITHOUT.format("torch"), "--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in InnerloopCommands.sources)


@pytest.mark.parametrize(
    ("command", "option", "package", "extra"),
    [("train", "--help", "torch", "trainer"), ("serve", "--models=.", "pydantic_settings", "server")],
)
def test_a_missing_extra_is_named_in_one_line(command, option, package, extra):
    result = python(WITHOUT.format(package), command, option)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f'innerloop {command} needs {package}: pip install "innerloop[{extra}]"\n'


def test_a_missing_backend_is_named_in_one_line():
    result = python(WITHOUT.format("torch"), "serve", "--models=.", "--backend=torch")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == 'innerloop serve: backend: torch is not installed; pip install "innerloop[server]"\n'


@pytest.mark.parametrize("name", InnerloopCommands.sources)
def test_every_command_that_is_listed_exists(name):
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_the_version_is_printed(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("innerloop ")


def test_adapt_takes_a_folder_per_label_and_predict_answers_in_the_labels(run, server, animals):
    code, adaptation, _ = run("adapt", "grey", animals, "--steps", 2)
    assert code == 0
    (request,) = server.requests("Adapt")
    assert list(request.support.labels.values) == ["cat", "cat", "dog", "dog"]
    assert request.support.inputs.images.files[1] == (animals / "cat" / "2.JPG").read_bytes()
    assert request.options.steps == 2
    code, out, _ = run("predict", adaptation.strip(), animals / "cat/1.png", animals / "dog/1.png", "--json")
    assert code == 0
    assert [(row["file"], row["label"]) for row in json.loads(out)] == [
        (str(animals / "cat/1.png"), "cat"),
        (str(animals / "dog/1.png"), "dog"),
    ]
    assert json.loads(out)[0]["probabilities"]["cat"] == json.loads(out)[0]["probability"] == pytest.approx(0.6)


def test_predict_takes_the_images_of_a_folder(run, animals):
    _, adaptation, _ = run("adapt", "grey", animals)
    (animals / "cat" / "notes.txt").write_text("not an image")
    code, out, err = run("predict", adaptation.strip(), animals / "cat", animals / "dog/1.png", "--json")
    assert (code, err) == (0, f"innerloop: left out 1: {animals / 'cat/notes.txt'} (not an image)\n")
    files = sorted(path for path in (animals / "cat").iterdir() if path.suffix != ".txt")
    assert [row["file"] for row in json.loads(out)] == list(map(str, [*files, animals / "dog/1.png"]))
    code, _, err = run("predict", adaptation.strip(), animals)
    assert code == 2
    assert "there are no images in" in err


def test_adapt_takes_labels_with_files_or_folders(run, server, animals):
    code, out, _ = run("adapt", "grey", f"feline={animals / 'cat/1.png'}", f"canine={animals / 'dog'}", "--json")
    assert code == 0
    assert list(server.requests("Adapt")[0].support.labels.values) == ["feline", "canine", "canine"]
    assert json.loads(out)["classes"] == ["feline", "canine"]


def test_adapt_takes_some_examples_of_each_label(run, server, animals):
    code, _, _ = run("adapt", "grey", animals, "--shots", 1)
    assert code == 0
    (request,) = server.requests("Adapt")
    assert list(request.support.labels.values) == ["cat", "dog"]


def test_more_examples_than_the_server_takes_are_not_sent(run, server, animals):
    server.models["grey"].limits.max_support = 3
    code, _, error = run("adapt", "grey", animals)
    assert code == 2
    assert "--shots 1" in error
    assert not server.requests("Adapt")


def test_answers_are_a_table_for_people(run, animals):
    _, adaptation, _ = run("adapt", "grey", animals)
    code, out, _ = run("predict", adaptation.strip(), animals / "cat/1.png")
    assert code == 0
    assert "cat/1.png" in out.replace("\n", "")
    assert "60.0%" in out


def test_brackets_and_colons_are_shown_as_they_are(run, animals):
    names = ["[other]", "[/home]", "card [urgent]", ":cat:", r"back\[slash]"]
    for name in names:
        file = animals / f"scan {name.replace('/', '-')}.png"
        shutil.copy(animals / "cat/1.png", file)
        _, adaptation, _ = run("adapt", "grey", f"{name}={file}", f"dog={animals / 'dog/1.png'}")
        code, out, _ = run("predict", adaptation.strip(), file)
        assert code == 0
        assert f" {name} " in out
        assert file.name in out
    code, _, err = run("predict", adaptation.strip(), "absent [/final].png")
    assert (code, err.count("\n")) == (1, 1)
    assert "absent [/final].png" in err


def command(*arguments, stdout=subprocess.PIPE, **environment):
    """Run the command in a process of its own, whose standard output and environment may be unusual."""
    return subprocess.run(
        [sys.executable, "-m", "innerloop_command", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture
def ask(server, animals):
    """Asks about one image in a process of its own; the labels are Chinese."""
    with Client(server.address) as client:
        id_ = client.adapt("grey", [animals / "cat/1.png", animals / "dog/1.png"], ["猫", "犬"]).id
    return lambda **unusual: command("predict", id_, animals / "cat/1.png", INNERLOOP_SERVER=server.address, **unusual)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["cp1252", "LC_ALL=C"],
)
def test_a_terminal_without_the_characters_of_a_label_shows_them_as_escapes(ask, environment):
    answer = ask(**environment)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert rb" \u732b " in answer.stdout
    assert b"60.0%" in answer.stdout


def test_an_answer_that_nobody_can_read_ends_with_1_and_no_traceback(ask):
    read, write = os.pipe()
    os.close(read)
    answer = ask(stdout=write)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (1, b"")
    with Path("/dev/full").open("wb") as full:
        answer = ask(stdout=full)
    assert (answer.returncode, answer.stderr.count(b"\n")) == (1, 1)
    assert b"can't write to standard output: No space left" in answer.stderr


def test_models_are_described(run):
    code, out, _ = run("models")
    assert code == 0
    assert "protonet" in out
    assert "5-way 1-shot" in out
    code, out, _ = run("models", "grey", "--json")
    assert (json.loads(out)["input_shape"], json.loads(out)["limits"]["max_ways"]) == ([1, 28, 28], 20)
    code, out, _ = run("models", "--json")
    assert [model["name"] for model in json.loads(out)] == ["grey", "colour", "waves", "vectors"]


def test_examples_are_listed_and_change(run, server, animals):
    adaptation = run("adapt", "grey", animals)[1].strip()
    listed = json.loads(run("examples", adaptation, "--json")[1])
    size = len(listed)
    changes = ["--remove", 0, "--relabel", "1=lion", "--rename", "dog=wolf", "--expect-revision", 1]
    code, out, _ = run("update", adaptation, f"cow={animals / 'cat/1.png'}", *changes)
    assert (code, out) == (0, "2\n")
    (sent,) = server.requests("UpdateAdaptation")
    assert (sent.expected_revision, list(sent.remove_examples), len(sent.add.inputs.images.files)) == (1, [0], 1)
    code, out, _ = run("examples", adaptation)
    assert code == 0
    assert {"lion", "wolf", "cow", str(size)} <= set(out.split())
    code, out, _ = run("update", adaptation, "--remove-class", "cow", "--json")
    assert (code, json.loads(out)["support_size"]) == (0, size - 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "name examples to learn"), (("--relabel", "x=a"), "is no id"), (("--rename", "a"), "OLD=NEW")],
)
def test_an_update_of_nothing_or_of_another_form_is_wrong_usage(run, arguments, said):
    code, _, err = run("update", "some", *arguments)
    assert code == 2
    assert said in " ".join(err.split())


def test_delete_forgets_an_adaptation(run, animals):
    _, adaptation, _ = run("adapt", "grey", animals)
    assert run("delete", adaptation.strip())[0] == 0
    code, _, err = run("predict", adaptation.strip(), animals / "cat/1.png")
    assert (code, err.count("\n")) == (1, 1)
    assert "ADAPTATION_NOT_FOUND" in err


def test_a_failed_call_is_one_line_on_stderr(run, server, animals):
    server.script("Adapt", bad_request("support.labels", "too many classes"))
    code, out, err = run("adapt", "grey", animals)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "support.labels: too many classes" in err


def test_a_failed_connection_is_one_line_on_stderr(server, monkeypatch):
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    result = python("from innerloop_command import main; main()", "models", "--server", server.address, "--tls")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "innerloop: the server doesn't speak TLS" in result.stderr


def test_what_is_left_out_of_a_folder_is_counted_and_named(run, server, animals):
    (animals / "cat" / "notes.txt").write_text("not an image")
    code, _, err = run("adapt", "grey", animals)
    assert (code, err) == (0, f"innerloop: left out 1: {animals / 'cat/notes.txt'} (not an image)\n")
    (animals / "cat" / "._1.png").write_bytes(b"Mac OS X")
    (animals / ".DS_Store").write_bytes(b"")
    (animals / "__MACOSX").mkdir()
    (animals / "stray.png").write_bytes(b"")
    (animals / "bird").mkdir()
    (animals / "bird" / "Thumbs.db").write_bytes(b"")
    (animals / "dog" / "puppies").mkdir()
    code, _, err = run("adapt", "grey", animals)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"innerloop: left out 7: {animals / '.DS_Store'} (hidden), {animals / '__MACOSX'} (hidden), ")
    assert f"{animals / 'bird'} (an empty folder)" in err
    assert err.endswith(", and 2 more\n")
    first, second = server.requests("Adapt")
    assert list(first.support.labels.values) == list(second.support.labels.values)


def test_images_of_every_format_and_linked_folders_are_sent(run, server, animals, tmp_path):
    names = [f"a{extension}" for extension in sorted(IMAGES.extensions)] + ["B.WEBP"]
    for name in names:
        (tmp_path / "elsewhere" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / name).write_bytes(name.encode())
    (animals / "fox").symlink_to(tmp_path / "elsewhere")
    code, _, _ = run("adapt", "grey", animals)
    assert code == 0
    (request,) = server.requests("Adapt")
    assert list(request.support.labels.values)[4:] == ["fox"] * len(names)
    assert {file.decode() for file in request.support.inputs.images.files[4:]} == set(names)


def test_a_refused_image_is_named_by_its_file(run, server, animals):
    server.script("Adapt", bad_request("support.inputs.images.files[2]", "is not an image"))
    code, _, err = run("adapt", "grey", animals)
    assert code == 1
    assert str(animals / "dog" / "1.png") in err
    assert "files[" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent"], "example 1, 'absent', is not a folder or LABEL=PATH"),
        (["=file.png"], "example 1, '=file.png', has an empty label"),
        (["cat= "], "example 1, 'cat= ', has an empty path"),
        (["label=absent.png"], "there is no file or folder absent.png"),
        (["cat={empty}"], "label 'cat' has no images"),
        (["{texts}"], "label 'letters' has no images"),
        (["{empty}"], "has no folders with images"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(run, server, tmp_path, arguments, says):
    folders = {"empty": tmp_path / "empty", "texts": tmp_path / "texts"}
    for folder in folders.values():
        folder.mkdir()
    (folders["texts"] / "letters").mkdir()
    (folders["texts"] / "letters" / "a.txt").write_text("a")
    code, out, err = run("adapt", "grey", *(argument.format(**folders) for argument in arguments))
    assert (code, out) == (2, "")
    assert says in " ".join(err.replace("│", " ").split())
    assert not server.requests("Adapt")


@pytest.fixture
def other_kinds(server):
    """Models "texts" and "sounds"."""
    server.models["texts"] = model_pb2.Model(name="texts", input_kind=model_pb2.INPUT_KIND_TEXT)
    server.models["sounds"] = model_pb2.Model(
        name="sounds",
        state=model_pb2.MODEL_STATE_READY,
        method="protonet",
        input_kind=model_pb2.INPUT_KIND_AUDIO,
        input_shape=[8000],
        sample_rate=16_000,
    )


@pytest.mark.usefixtures("other_kinds")
def test_a_model_of_audio_is_given_the_recordings_of_a_folder(run, server, tmp_path):
    for name in ("yes/1.wav", "yes/2.FLAC", "no/1.wav", "no/cover.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    code, adaptation, err = run("adapt", "sounds", tmp_path)
    assert (code, err) == (0, f"innerloop: left out 1: {tmp_path / 'no/cover.png'} (not a recording)\n")
    support = server.requests("Adapt")[0].support
    assert list(support.labels.values) == ["no", "yes", "yes"]
    assert list(support.inputs.audio_files.files) == [b"no/1.wav", b"yes/1.wav", b"yes/2.FLAC"]
    code, out, _ = run("predict", adaptation.strip(), tmp_path / "no/1.wav", "--json")
    assert (code, json.loads(out)[0]["file"]) == (0, str(tmp_path / "no/1.wav"))
    assert list(server.requests("Predict")[0].query.audio_files.files) == [b"no/1.wav"]
    assert "recordings, 0.5 s of each at 16,000 Hz" in run("models", "sounds")[1]


@pytest.mark.usefixtures("other_kinds")
def test_a_model_of_texts_is_given_tables_and_texts(run, server, tmp_path):
    (tmp_path / "some.csv").write_text("text,label\nlost it,lost\nso slow,slow\n")
    (tmp_path / "asked.txt").write_text("where is it\nhow long\n")
    code, adaptation, _ = run("adapt", "texts", tmp_path / "some.csv", "rate=rate = 2")
    assert code == 0
    support = server.requests("Adapt")[0].support
    assert list(support.inputs.texts.values) == ["lost it", "so slow", "rate = 2"]
    assert list(support.labels.values) == ["lost", "slow", "rate"]
    code, out, _ = run("predict", adaptation.strip(), "a text", tmp_path / "asked.txt", tmp_path / "some.csv", "--json")
    assert [row["text"] for row in json.loads(out)] == ["a text", "where is it", "how long", "lost it", "so slow"]


@pytest.mark.usefixtures("other_kinds")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a=one", "two"], "example 2, 'two', is not a CSV file that is there or LABEL=TEXT"),
        (["a=one", "b="], "example 2, 'b=', has an empty text"),
        (["absent.csv"], "example 1, 'absent.csv', is not a CSV file that is there"),
    ],
)
def test_a_wrong_text_is_refused(run, server, arguments, says):
    code, _, err = run("adapt", "texts", *arguments)
    assert code == 2
    assert says in " ".join(err.replace("│", " ").split())
    assert not server.requests("Adapt")
