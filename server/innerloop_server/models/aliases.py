"""The file of a model's aliases, which operators write by hand or have the server write.

stable = "1"
canary = { version = "2", percent = 10 }
"""

import json
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from innerloop_server.domain.model_versions import CANARY, WantedAlias

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AliasesError(ValueError):
    """Aliases that make no sense; the message says which, why, and what to do."""


def parse_aliases(content: str) -> dict[str, WantedAlias]:
    """The aliases of a file.

    Raises:
        AliasesError: it is no such file.
    """
    try:
        table = tomllib.loads(content)
    except (ValueError, RecursionError) as error:  # numbers of too many digits and what is nested too deep, too
        raise AliasesError(f"is not valid TOML: {error}") from error
    return {name: check_alias(name, _wanted(name, value)) for name, value in table.items()}


def check_alias(name: str, alias: WantedAlias) -> WantedAlias:
    """The alias if it makes sense.

    Raises:
        AliasesError: it does not.
    """
    if not NAME.fullmatch(name):
        raise AliasesError(f"{name!r} is no name of an alias: use letters, digits, - and _, at most 64 of them")
    if not alias.version or not alias.version.isprintable():
        raise AliasesError(f"{name} names no version: give the folder of one, or the beginning of its digest")
    if not 0 <= alias.percent <= 100:
        raise AliasesError(f"{name} has {alias.percent:g} percent: give a number from 0 to 100")
    if alias.percent and name != CANARY:
        raise AliasesError(f"{name} has a percentage: only {CANARY} takes a share of the requests")
    return alias


def edit_aliases(content: str, name: str, alias: WantedAlias | None) -> str:
    r"""The content of a file after an alias was set or, with None, taken away; all else stays as it was written.

    Raises:
        AliasesError: the alias stands in the file in a way that can't be changed line by line.

    Example:
        >>> edit_aliases('stable = "1"  # since May\n', "stable", WantedAlias("2"))
        '# since May\nstable = "2"\n'
    """
    line = "" if alias is None else f"{name} = {_value(alias)}\n"
    written = re.compile(
        rf"^[ \t]*{re.escape(name)}[ \t]*=[ \t]*(?:\"[^\"\n]*\"|'[^'\n]*'|\{{[^}}\n]*\}})[ \t]*(#.*)?\n?", re.MULTILINE
    )
    expected = parse_aliases(content)
    expected.pop(name, None)
    if alias is not None:
        expected[name] = alias

    def replaced(found: "re.Match[str]") -> str:
        return (f"{found[1]}\n" if found[1] else "") + line

    edited, count = written.subn(replaced, content, count=1)
    if not count:
        edited = line + content  # before any table, of which it would become a part
    if _parsed(edited) != expected:
        raise AliasesError(f"can't change {name} in the file as it is written; change it by hand")
    return edited


def write_aliases(file: Path, content: str) -> None:
    """Put a file in the place of another one; whoever reads it never sees half of it.

    Raises:
        OSError: it can't be written.
    """
    scratch = file.with_name(f".{file.name}.writing")
    scratch.write_text(content)
    scratch.replace(file)


def _wanted(name: str, value: Any) -> WantedAlias:
    match value:
        case str():
            return WantedAlias(value)
        case {"version": str(version), **rest} if not rest.keys() - {"percent"}:
            percent = rest.get("percent", 0)
            if isinstance(percent, int | float) and not isinstance(percent, bool):
                with suppress(OverflowError):
                    return WantedAlias(version, float(percent))
    raise AliasesError(f"{name} is neither a version nor {{ version = ..., percent = ... }}")


def _value(alias: WantedAlias) -> str:
    version = json.dumps(alias.version, ensure_ascii=False)
    return f"{{ version = {version}, percent = {alias.percent!r} }}" if alias.percent else version


def _parsed(content: str) -> Mapping[str, WantedAlias] | None:
    try:
        return parse_aliases(content)
    except AliasesError:
        return None
