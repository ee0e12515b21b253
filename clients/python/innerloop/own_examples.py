"""The examples of an adaptation that a client keeps, to make it again if the server had to drop it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np

from innerloop.changes import Change, Example
from innerloop.errors import InvalidArgumentError
from innerloop.examples import Names
from innerloop.recipe import Recipe
from innerloop.tensors import Array, decode_tensor, encode_tensor
from innerloop.v1 import adaptation_pb2 as pb
from innerloop.v1 import tensor_pb2


class UnknownExampleError(InvalidArgumentError):
    """The client keeps no example of that id, or of that class."""


@dataclass(frozen=True)
class OwnExamples:
    """A recipe whose examples can be named one by one.

    Attributes:
        recipe: the examples, and how to adapt to them.
        ids: of the examples, as the caller knows them.
        kept_ids: as the server knows them: others, where the adaptation had to be made again.
        next_id: that the next example gets, as the caller will know it.
    """

    recipe: Recipe
    ids: tuple[int, ...]
    kept_ids: tuple[int, ...]
    next_id: int

    @classmethod
    def of(cls, recipe: Recipe) -> "OwnExamples":
        """The examples that an adaptation begins with."""
        count = count_of(recipe.support.inputs)
        return cls(recipe, tuple(range(count)), tuple(range(count)), count)

    def made_again(self) -> "OwnExamples":
        """The same examples of a new adaptation."""
        return replace(self, kept_ids=tuple(range(len(self.ids))))

    def for_server(self, change: Change) -> Change:
        """A change with the ids that the server knows.

        Raises:
            UnknownExampleError: an example is not there any more.
        """
        if self.ids == self.kept_ids:
            return change  # others may have added examples: the server knows
        return change.with_ids(self._known_as(change.remove), self._known_as(change.relabel))

    def changed(self, change: Change, kept_ids: Sequence[int] = ()) -> tuple["OwnExamples", tuple[int, ...]]:
        """What a change makes of the examples, and the ids of those that it adds.

        Args:
            change: with the ids that the caller knows.
            kept_ids: of the added examples, as the server knows them; empty where it does not say.

        Raises:
            UnknownExampleError: an example is not there.
            InvalidArgumentError: the added ones are of another form than those before.
        """
        self._known_as((*change.remove, *change.relabel))
        support = pb.Support()
        support.CopyFrom(self.recipe.support)
        stay = self._relabel(support, change)
        support.inputs.CopyFrom(_chosen(support.inputs, stay))
        _choose_answers(support, stay)
        count = 0 if change.add is None else count_of(change.add.inputs)
        if change.add is not None:
            support = _joined(support, change.add)
        given = tuple(kept_ids)
        same = self.ids == self.kept_ids and len(given) == count
        added = given if same else tuple(range(self.next_id, self.next_id + count))
        names = Names("support example", labels=list(support.labels.values))
        return OwnExamples(
            replace(self.recipe, support=support, names=names, labels={**self.recipe.labels, **change.labels}),
            (*(self.ids[place] for place in stay), *added),
            (*(self.kept_ids[place] for place in stay), *(given if len(given) == count else added)),
            added[-1] + 1 if added else self.next_id,
        ), added

    def check(self, change: Change) -> None:
        """Refuse what could not be adapted to together with the examples before.

        Raises:
            InvalidArgumentError: the added examples are of another form, or there are labels where there were targets.
        """
        regresses = self.recipe.support.HasField("targets")
        given = [] if change.answers is None else [change.answers.targets is not None]
        if change.add is not None:
            given.append(change.add.HasField("targets"))
        if any(each != regresses for each in given):
            raise InvalidArgumentError(f"the examples before have {'targets' if regresses else 'labels'}; give these")
        if change.add is not None:
            _joined(self.recipe.support, change.add)

    def known_as(self, kept_ids: Sequence[int]) -> "OwnExamples":
        """The same examples, which the server knows by other ids now, or by none."""
        return replace(self, kept_ids=tuple(kept_ids) or self.ids)

    def listed(self, labels: Mapping[str, Any]) -> list[Example]:
        """The examples; `labels` are the caller's own objects by their names."""
        support = self.recipe.support
        if support.HasField("targets"):
            return [Example(*each) for each in zip(self.ids, repeat(None), decode_tensor(support.targets))]
        names = support.labels.values
        return [Example(each, labels.get(name, name), None) for each, name in zip(self.ids, names, strict=True)]

    def with_known_ids(self, listed: list[Example]) -> list[Example]:
        """What the server has listed, with the ids that the caller knows."""
        ids = self.with_own_ids([each.id for each in listed])
        return [each._replace(id=known) for each, known in zip(listed, ids, strict=True)]

    def with_own_ids(self, kept_ids: Sequence[int]) -> tuple[int, ...]:
        """Ids that the server has said, as the caller knows them."""
        known = dict(zip(self.kept_ids, self.ids, strict=True))
        return tuple(known.get(each, each) for each in kept_ids)

    def agrees(self, listed: list[Example], labels: Mapping[str, Any]) -> bool:
        """Whether the server has listed just these examples."""
        found = self.with_known_ids(listed)
        return len(found) == len(self.ids) and all(
            (ours.id, ours.label) == (theirs.id, theirs.label) and _same(ours.target, theirs.target)
            for ours, theirs in zip(self.listed(labels), found, strict=True)
        )

    def _relabel(self, support: pb.Support, change: Change) -> list[int]:
        """Change the answers of a copy; returns the places of the examples that stay."""
        before = list(support.labels.values)
        gone, classes, renamed = set(change.remove), set(change.remove_classes), dict(change.rename)
        if missing := (classes | renamed.keys()).difference(before):
            raise UnknownExampleError(f"the adaptation has no class {min(missing)!r}")
        if before:
            support.labels.values[:] = [renamed.get(label, label) for label in before]
        places = [self.ids.index(each) for each in change.relabel]
        if change.answers is not None and change.answers.targets is not None:
            targets = decode_tensor(support.targets).copy()
            targets[places] = change.answers.targets
            support.targets.CopyFrom(encode_tensor(targets))
        elif change.answers is not None:
            for place, label in zip(places, change.answers.labels, strict=True):
                support.labels.values[place] = label
        return [
            place
            for place, each in enumerate(self.ids)
            if each not in gone and not (before and before[place] in classes)
        ]

    def _known_as(self, ids: Sequence[int]) -> tuple[int, ...]:
        known = dict(zip(self.ids, self.kept_ids, strict=True))
        if missing := [each for each in ids if each not in known]:
            raise UnknownExampleError(f"the adaptation has no example {missing[0]}; examples() lists those that it has")
        return tuple(known[each] for each in ids)


def _same(one: Array | None, other: Array | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def count_of(inputs: tensor_pb2.Inputs) -> int:
    """Number of examples in a message."""
    form = inputs.WhichOneof("value")
    return inputs.tensor.shape[0] if form == "tensor" else len(_items(inputs))


def _items(inputs: tensor_pb2.Inputs) -> Any:
    """The repeated field that holds examples that are no tensor."""
    held = getattr(inputs, str(inputs.WhichOneof("value")))
    return held.files if hasattr(held, "files") else held.values


def _chosen(inputs: tensor_pb2.Inputs, places: list[int]) -> tensor_pb2.Inputs:
    if inputs.WhichOneof("value") == "tensor":
        return tensor_pb2.Inputs(tensor=encode_tensor(decode_tensor(inputs.tensor)[places]))
    chosen = tensor_pb2.Inputs()
    chosen.CopyFrom(inputs)
    items = _items(chosen)
    kept = [items[place] for place in places]
    del items[:]
    items.extend(kept)
    return chosen


def _choose_answers(support: pb.Support, places: list[int]) -> None:
    if support.HasField("targets"):
        support.targets.CopyFrom(encode_tensor(decode_tensor(support.targets)[places]))
    else:
        support.labels.values[:] = [support.labels.values[place] for place in places]


def _joined(before: pb.Support, added: pb.Support) -> pb.Support:
    """Two support sets as one."""
    joined, form = pb.Support(), before.inputs.WhichOneof("value")
    joined.CopyFrom(before)
    if form != added.inputs.WhichOneof("value"):
        raise InvalidArgumentError(
            f"the examples before were given as {form}, and these as {added.inputs.WhichOneof('value')}: this client "
            "could not adapt to them together, should the server lose the adaptation; give them in the same form, or "
            "make the client with readapt=False"
        )
    if form == "tensor":
        parts = [decode_tensor(each.inputs.tensor) for each in (before, added)]
        if parts[0].shape[1:] != parts[1].shape[1:]:
            raise InvalidArgumentError(
                f"the examples before have the shape {list(parts[0].shape[1:])}, and these {list(parts[1].shape[1:])}"
            )
        joined.inputs.tensor.CopyFrom(encode_tensor(np.concatenate(parts)))
    else:
        _items(joined.inputs).extend(_items(added.inputs))
    if before.HasField("targets"):
        targets = [decode_tensor(each.targets) for each in (before, added)]
        joined.targets.CopyFrom(encode_tensor(np.concatenate(targets)))
    else:
        joined.labels.values.extend(added.labels.values)
    return joined
