"""Streams of a GPU, without one: what is put into a stream runs later, in any order that streams and events allow."""

from collections import deque
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
DEFERRED = {aten.copy_.default, aten.index_copy_.default}


class Event:
    """Has happened when its stream has come to it."""

    def __init__(self):
        self.happened = False


class Stream:
    """Operations in order."""

    def __init__(self, *_):
        self.waiting = deque()  # operations, and events to wait for

    def record_event(self):
        event = Event()
        self.waiting.append(lambda: setattr(event, "happened", True))
        return event

    def wait_event(self, event):
        self.waiting.append(event)

    def wait_stream(self, other):
        self.wait_event(other.record_event())

    @property
    def ready(self):
        return bool(self.waiting) and not (isinstance(self.waiting[0], Event) and not self.waiting[0].happened)


class Streams(TorchDispatchMode):
    """Inside, operations that read or write what others read or write go to streams, in place of `torch.cuda`'s.

    Args:
        random: decides what runs when.
        monkeypatch: pytest's.

    Attributes:
        made: streams in order; the first is that of the work.
        recorded: those for which memory of other streams is kept until they have come as far.
    """

    def __init__(self, random, monkeypatch):
        super().__init__()
        self._random = random
        self.made, self.recorded = [], []
        self._current = self._make()
        self._deferring = True
        for name, stand_in in {
            "Stream": self._make,
            "stream": self._within,
            "current_stream": lambda *_: self._current,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: self.recorded.append(stream))

    def run(self, most=None):
        """Run so many operations, or all."""
        self._deferring = False
        while most != 0 and (ready := [stream for stream in self.made if stream.ready]):
            operation = self._random.choice(ready).waiting.popleft()
            if callable(operation):
                operation()
            most = None if most is None else most - 1
        self._deferring = True
        assert most is not None or not any(stream.waiting for stream in self.made), "streams wait for each other"

    def _make(self, *_):
        self.made.append(Stream())
        return self.made[-1]

    @contextmanager
    def _within(self, stream):
        before, self._current = self._current, stream
        yield
        self._current = before

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        del types
        keywords = keywords or {}
        if not self._deferring or (operation not in DEFERRED and operation is not aten.index_select.default):
            return operation(*arguments, **keywords)
        if operation in DEFERRED:
            self._current.waiting.append(lambda: operation(*arguments, **keywords))
            return arguments[0]
        words, _, indices = arguments
        rows = words.new_full((len(indices), *words.shape[1:]), -1)
        self._current.waiting.append(lambda: rows.copy_(operation(*arguments)))
        return rows
