"""docs/methods names all that can be chosen, with equations of the code, measured figures, and commands that run."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import innerloop

from innerloop_learner.learner import methods
from innerloop_learner.settings import StepSettings
from innerloop_trainer.catalogue import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page.read_text() for page in sorted((ROOT / "docs" / "methods").glob("*.md"))}
BENCHMARKS = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
OMNIGLOT = json.loads((ROOT / "benchmarks" / "omniglot" / "results.json").read_text())["results"]
FIGURE = re.compile(r"[+-]?\d[\d.,]*%? ± \d+(?:\.\d+)?%?|\d+ MB")

REGISTRIES = {methods.kind: methods, **{kind.registry.kind: kind.registry for kind in KINDS}}
del REGISTRIES["objective"]  # no page is about outer losses: each belongs to its method


def rows(page: str) -> list[tuple[str, str]]:
    """The first cell of the head and of the row, for each row of each table."""
    found, head = [], None
    for line in page.splitlines():
        first = line.removeprefix("|").partition("|")[0].strip() if line.startswith("|") else None
        if first is None or head is None:
            head = first
        elif not first.startswith("---"):
            found.append((head, first))
    return found


@pytest.mark.parametrize("kind", REGISTRIES)
def test_all_that_is_registered_has_one_row_on_one_page(kind: str) -> None:
    named = [name for page in PAGES.values() for head, cell in rows(page) if head == kind for name in [cell.strip("`")]]
    assert Counter(named) == Counter(REGISTRIES[kind])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_a_picture_a_command_and_advice(page: str) -> None:
    assert "```mermaid\n" in PAGES[page]
    assert "```sh\n" in PAGES[page]
    assert re.search(r"\bTake (it|one|`|those|a )", PAGES[page])


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"docs/methods/{page}.md" not in readme] == []


def sources() -> list[str]:
    return [file.read_text() for part in ("learner", "trainer") for file in (ROOT / part).rglob("*.py")]


def test_settings_that_are_named_exist() -> None:
    known = {
        name for source in sources() for name in re.findall(r"^ +(\w+): [^=\n]+ = setting\(", source, re.MULTILINE)
    }
    named = {name for page in PAGES.values() for name in re.findall(r"--[\w-]*set [\"']?(\w+)=", page)}
    assert named > {"sigma", "noise", "copies"}
    assert named - known == set()


def plain(equation: str) -> str:
    return " ".join(equation.split()).rstrip(",")


def test_equations_are_those_of_the_code() -> None:
    of_code = {plain(line) for source in sources() for line in source.splitlines()}
    for page in PAGES.values():
        prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
        equations = re.findall(r"^    (.*)$", prose, re.MULTILINE)
        assert [equation for equation in equations if plain(equation) not in of_code] == []


def test_figures_are_those_measured() -> None:
    for page in PAGES.values():
        for line in page.splitlines():
            row = re.match(r"\| `([^`]+)` \|", line)
            of_method = OMNIGLOT.get(row[1]) if row else None
            measured = BENCHMARKS
            if of_method:
                figures = [setting["inductive"] for setting in of_method["settings"].values()]
                measured = " ".join(f"{each['accuracy']:.2%} ± {each['confidence_interval']:.2%}" for each in figures)
            assert [figure for figure in FIGURE.findall(line) if figure not in measured] == []


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("weighs_examples", "take weightings"),
        ("takes_noise", "take it, on `conv4`"),
        ("augments_support", "take policies"),
    ],
)
def test_pages_list_the_methods_that_take_a_part(flag: str, sentence: str) -> None:
    text = " ".join(" ".join(PAGES.values()).split())
    (named,) = re.findall(rf"((?:`[\w+-]+`(?:, | and ))+`[\w+-]+`) {sentence}", text)
    assert sorted(re.findall(r"`([^`]+)`", named)) == [name for name in methods if getattr(methods[name], flag)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small images, and a folder of images without classes beside them."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for place in [*(f"PATH/class{number}" for number in range(36)), "UNLABELLED"]:
        (folder / place).mkdir(parents=True)
        for number in range(12 if place != "UNLABELLED" else 60):
            pixels = generator.integers(0, 255, (28, 28), np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
    return folder


SMALL = (
    "--iterations 1 --meta-batch 2 --queries 2 --validation-episodes 2 --test-episodes 2 --validate-every 1 "
    "--calibration-episodes 0 --no-report --device cpu"
)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "".join(re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)).replace("\\\n", " ")
    for command in text.splitlines():
        program, kind, *words = shlex.split(command)
        assert program == "innerloop"
        if kind != "train":  # takes minutes: tried elsewhere
            shown = innerloop(kind, "--help").output
            assert [word for word in words if word.startswith("--") and word not in shown] == []
            continue
        answer = innerloop(kind, *(on(data, word) for word in words), *shlex.split(SMALL), *smaller(command, words[0]))
        assert answer.status == 0, answer


def on(data: Path, word: str) -> str:
    """A source of small data in the place of another."""
    return re.sub(
        r"^(images|omniglot):", f"images:{data}/", re.sub(r"^omniglot:.*domains=.*", "digits?domains=rotation", word)
    )


def smaller(command: str, method: str) -> list[str]:
    """Options that make a command quick, where it may have them."""
    ways = "2" if "domains=" in command else "5"
    options = ["--ways", ways] if "sinusoid" in command else ["--ways", ways, "--train-ways", ways]
    options += [] if "sinusoid" in command or "width=" in command else ["--backbone-set", "width=8"]
    return [*options, *(["--steps", "1"] if issubclass(methods[method].settings_class, StepSettings) else [])]
