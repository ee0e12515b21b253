"""Generate the Python stubs of proto/ into the SDK, or check that they are up to date (--check).

With --descriptors FILE, write descriptors of proto/ and its imports to that file instead, for tools that can't find
imports.
"""

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "clients" / "python"
PACKAGE = Path("innerloop") / "v1"


def generate(target: Path) -> None:
    """Write the stubs of every proto file below `target`."""
    # mypy-protobuf's plugins lie beside the interpreter, which need not be on PATH.
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    run_protoc(
        f"--plugin=protoc-gen-mypy_grpc={plugin}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out={target}",
    )
    (target / PACKAGE / "__init__.py").write_text('"""Generated from proto/innerloop/v1 by `make proto`."""\n')


def run_protoc(*outputs: str) -> None:
    """Run protoc over every proto file."""
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    error_details = Path(status_pb2.__file__).parents[2]  # googleapis-common-protos installs its sources there
    folders = (f"--proto_path={folder}" for folder in (PROTO, well_known, error_details))
    if protoc.main(["protoc", *folders, *outputs, *protos]) != 0:
        sys.exit("protoc failed")


def main() -> None:
    """Parse the command line and generate or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--descriptors", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.descriptors is not None:
        run_protoc(f"--descriptor_set_out={arguments.descriptors}", "--include_imports", "--include_source_info")
        return
    if not arguments.check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.name for path in (Path(scratch) / PACKAGE).iterdir()}
        kept = {path.name for path in (TARGET / PACKAGE).iterdir() if path.is_file()}
        _, changed, missing = filecmp.cmpfiles(Path(scratch) / PACKAGE, TARGET / PACKAGE, fresh, shallow=False)
        stale = sorted({*changed, *missing, *(kept - fresh)})
    if stale:
        sys.exit(f"stubs differ from proto/ ({', '.join(stale)}); run `make proto`")


if __name__ == "__main__":
    main()
