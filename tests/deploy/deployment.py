"""The files of deploy/, read the way their tools read them."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def read_yaml(path):
    return yaml.safe_load((DEPLOY / path).read_text())


@dataclass
class Stage:
    """One stage of a Dockerfile: what it is built on, and its instructions as (keyword, argument)."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def read_dockerfile(path):
    """Stages by name, in order."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / path).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, argument = line.partition(" ")
        if keyword == "FROM":
            base, _, name = argument.partition(" AS ")
            stages[name] = stage = Stage(name, base)
        else:
            stage.instructions.append((keyword, argument.strip()))
    return stages


def lineage(stages, name):
    """A stage's instructions after those of the stages it is built on."""
    stage = stages[name]
    inherited = lineage(stages, stage.base) if stage.base in stages else []
    return inherited + stage.instructions


def last(instructions, keyword):
    """Argument of the last instruction of a kind, which is the one that counts."""
    return [argument for found, argument in instructions if found == keyword][-1]


def environment(instructions):
    """Variables that a container starts with."""
    return dict(
        pair.split("=", 1) for keyword, argument in instructions if keyword == "ENV" for pair in argument.split()
    )


def command(argument):
    """The list of an exec-form instruction."""
    return json.loads(argument[argument.index("[") :])
