"""What support examples say about each other: which labels may be wrong, and which classes can't be told apart."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from innerloop.v1 import adaptation_pb2 as pb


class ExpectedAccuracy(NamedTuple):
    """The accuracy to expect of queries like the examples, all classes as often.

    It is the share of examples whose label the others give, and so takes all labels for true, and each class for one
    example smaller than it is. Where classes have few examples, queries do better than that.

    Attributes:
        value: that share.
        low, high: ends of its 95% interval, which counts how few examples there are.
        examples: how many the others were asked about.
    """

    value: float
    low: float
    high: float
    examples: int


class AlikeClasses(NamedTuple):
    """Two classes that can't be told apart.

    Attributes:
        first, second: their labels.
        confusion: mean probability that an example of one belongs to the other, if it belongs to one of them: 0.5 for
            the same class under two names.
    """

    first: Any
    second: Any
    confusion: float


class Diagnosis(NamedTuple):
    """What the server found out by leaving each support example out and asking the others about it.

    Attributes:
        doubts: for each support example, how likely its label is wrong, if one label of ten is; None for the only
            example of a class.
        likely_labels: for each, the label that it most looks like; its own where nobody can tell.
        expected_accuracy: None if each example is the only one of its class.
        alike: pairs of classes that can't be told apart, the most alike first.
        ids: of the examples, for `Adaptation.remove` and `Adaptation.relabel`.
    """

    doubts: tuple[float | None, ...]
    likely_labels: tuple[Any, ...]
    expected_accuracy: ExpectedAccuracy | None
    alike: tuple[AlikeClasses, ...]
    ids: tuple[int, ...] = ()

    def doubtful(self, least: float = 0.5) -> list[int]:
        """Places of the support examples whose doubt is `least` or more, the most doubtful first.

        Example:
            >>> Diagnosis((0.1, 0.6, None, 0.9), ("a", "a", "b", "c"), None, ()).doubtful()
            [3, 1]
        """
        places = [place for place, doubt in enumerate(self.doubts) if doubt is not None and doubt >= least]
        return sorted(places, key=lambda place: -(self.doubts[place] or 0.0))

    @classmethod
    def from_message(cls, message: pb.Diagnosis, classes: Sequence[Any], ids: Sequence[int]) -> "Diagnosis":
        """Read the wire form, given the labels of the classes and the ids of the examples."""
        expected = message.expected_accuracy
        return cls(
            tuple(None if math.isnan(doubt) else doubt for doubt in message.doubts),
            tuple(classes[place] for place in message.likely_classes),
            ExpectedAccuracy(expected.value, expected.low, expected.high, expected.examples)
            if message.HasField("expected_accuracy")
            else None,
            tuple(AlikeClasses(classes[each.first], classes[each.second], each.confusion) for each in message.alike),
            tuple(ids),
        )
