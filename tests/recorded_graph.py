"""Stands in for a CUDA graph on the CPU: operations are recorded, and run again on the same memory."""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


class RecordedGraph(TorchDispatchMode):
    """Runs recorded operations again, on the same memory, as a CUDA graph does.

    A GPU does not run what it records, so what was changed in place while recording is changed back at the end, and
    generators that were drawn from are set back.
    """

    def __init__(self):
        super().__init__()
        self._operations, self._before, self._generators = [], [], {}

    def register_generator_state(self, generator):
        """Numbers of this generator may be drawn."""
        self._generators[generator._cdata] = None  # operations see other objects of Python for the same generator

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        keywords = keywords or {}
        for generator in [each for each in keywords.values() if isinstance(each, torch.Generator)]:
            assert generator._cdata in self._generators, "a generator that the graph does not know"
            self._generators[generator._cdata] = self._generators[generator._cdata] or (
                generator,
                generator.get_state(),
            )
        self._before += [(each, each.detach().clone()) for each in changed(operation, arguments, keywords)]
        output = operation(*arguments, **keywords)
        self._operations.append((operation, arguments, keywords, output))
        return output

    @torch.no_grad()
    def __exit__(self, *error):
        super().__exit__(*error)
        for tensor, value in reversed(self._before):
            tensor.detach().copy_(value)
        self._before = []
        for generator, state in filter(None, self._generators.values()):
            generator.set_state(state)

    @torch.no_grad()
    def replay(self):
        for operation, arguments, keywords, output in self._operations:
            again = operation(*arguments, **keywords)
            for old, new in zip(leaves(output), leaves(again), strict=True):
                if old is not new:
                    old.detach().copy_(new)


def changed(operation, arguments, keywords):
    """The tensors that an operation changes in place."""
    names = operation._schema.arguments
    given = zip(names, (*arguments, *(keywords.get(each.name) for each in names[len(arguments) :])), strict=True)
    return leaves([value for each, value in given if each.alias_info is not None and each.alias_info.is_write])


def leaves(tree):
    found = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) else None, tree)
    return found


@contextmanager
def record(graph, *_, **__):
    """In the place of `torch.cuda.graph`."""
    with graph:
        yield
