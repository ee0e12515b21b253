"""Adaptations as files that answer without the server."""

import asyncio
import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from innerloop_server.adaptations.live import LiveAdaptation
from innerloop_server.domain.errors import NotPortableError, OverloadedError
from innerloop_server.domain.portable import GraphFile, NoGraph, PortableAdaptation
from innerloop_server.engine.interface import LoadedModel, MemoryFullError
from innerloop_server.serving.restore import MEMORY_RETRY_SECONDS

FORMAT, FORMAT_VERSION = "innerloop-adaptation", 1


def check_portable(model: LoadedModel) -> GraphFile:
    """The graph that answers for a model without the server.

    Raises:
        NotPortableError: it has none.
    """
    if isinstance(model.graph, NoGraph):
        raise NotPortableError(model.graph.why)
    return model.graph


async def portable(live: LiveAdaptation) -> PortableAdaptation:
    """An adaptation in memory as files.

    Raises:
        NotPortableError: its model has no graph that answers alone.
        OverloadedError: there is no room to read its state now.
    """
    graph = check_portable(live.model)
    description = json.dumps(_description(live), indent=2).encode()
    state = await asyncio.to_thread(_state, live)
    return PortableAdaptation(live.record.model, description, state, graph)


def _state(live: LiveAdaptation) -> bytes:
    try:
        tensors = live.model.state_tensors(live.state)
    except MemoryFullError as error:
        raise OverloadedError(MEMORY_RETRY_SECONDS) from error
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **tensors)
    return archive.getvalue()


def _description(live: LiveAdaptation) -> dict[str, Any]:
    """What the files are, without the adaptation's id: where nobody has an identity, whoever knows an id may use it."""
    record, model = live.record, live.model
    described, ways = model.description, len(record.classes)
    calibration = None if model.calibration is None else model.calibration.at(ways, record.support_size / max(ways, 1))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": record.model,
        "model_version": described.version,
        "revision": record.revision,
        "classes": record.classes,
        "support_size": record.support_size,
        "input": {"shape": described.input_shape, "dtype": described.input_dtype},
        "temperature": 1.0 if calibration is None else calibration.temperature,
        "calibration": None if calibration is None else asdict(calibration),
    }
