"""Files of the graphs that callers may download."""

from pathlib import Path

from innerloop_learner.manifest import PREDICT, Manifest
from innerloop_server.domain.portable import GraphFile, NoGraph

ENCODED = NoGraph(
    "its model stands behind an encoder, and the graph alone takes features; go on asking the server, or have its "
    "operator give you the bundle, whose graphs docs/portable_bundles.md explains"
)
"""What there is of models behind encoders, whose inputs a graph can't read."""


def graph_file(path: Path, manifest: Manifest) -> GraphFile | NoGraph:
    """The predict graph of a bundle.

    Args:
        path: folder of the bundle.
        manifest: that it was loaded with.
    """
    if manifest.graphs is None:
        return NoGraph(
            "the bundle of its model has no ONNX graphs; the server's operator adds them with "
            "`innerloop export BUNDLE --out BUNDLE --onnx`"
        )
    if manifest.graphs.refused:
        return NoGraph("its model can't be written as an ONNX graph; go on asking the server")
    try:
        file = (path / PREDICT).resolve(strict=True)  # a link may lead to another version of the bundle by then
        return GraphFile(str(file), file.stat().st_size, manifest.files[PREDICT])
    except OSError:
        return NoGraph("the bundle of its model has changed on disk; have the server's operator load it again")
