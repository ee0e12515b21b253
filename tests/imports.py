"""What the packages' source files import, read without importing them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "innerloop": ROOT / "clients" / "python",
    "innerloop_command": ROOT / "clients" / "python",
    "innerloop_learner": ROOT / "learner",
    "innerloop_trainer": ROOT / "trainer",
    "innerloop_server": ROOT / "server",
}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the packages."""
    for package, folder in FOLDERS.items():
        for file in sorted((folder / package).rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imported(source: str) -> set[str]:
    """Dotted names that a module imports, anywhere in it.

    `from a import b` counts as a.b, which may be a module or a name in one. Names that are handed to `import_module` as
    they stand count too.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            case ast.ImportFrom():
                raise ValueError(f"line {node.lineno}: relative imports hide what a module depends on")
            case ast.Call(
                func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(name)), *_],
            ):
                names.add(name)
    return names


def is_within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")
