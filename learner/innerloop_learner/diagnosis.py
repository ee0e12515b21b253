"""What the examples of a support set say about each other's labels. Needs no PyTorch.

The learner itself is asked: it adapts to all examples but one and answers that one, and so with each. Of an example
that it has learned from, most learners would only repeat the label.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_PARTS = 100
"""Most tasks that a support set is diagnosed with. Larger sets are left out in as many parts instead of one by one, so
that the work grows with the number of examples and not with its square."""

WRONG_SHARE = 0.1
"""Share of labels that is supposed to be wrong before anything is known. A label is given by somebody who has seen the
example, and so weighs against what the others say; chosen on validation classes with 4% to 40% of wrong labels."""

DOUBTFUL_FROM = 0.5
"""Examples of this doubt pass for doubtful: their label is rather wrong than right."""

ALIKE_FROM = 0.35
"""Classes of this confusion pass for alike; the same class under two names has 0.5. Chosen on validation classes."""

DEVIATIONS = 1.959964
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""


@dataclass(frozen=True, slots=True)
class ExpectedAccuracy:
    """The accuracy to expect of a task, from the examples that the others were asked about.

    Attributes:
        value: share of them whose label the others give.
        low, high: ends of its 95% interval.
        examples: how many were asked about.
    """

    value: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True, slots=True)
class AlikeClasses:
    """Two classes that can't be told apart.

    Attributes:
        first, second: their indices.
        confusion: mean probability that an example of one belongs to the other, if it belongs to one of them.
    """

    first: int
    second: int
    confusion: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the examples of a support set say about each other.

    Attributes:
        doubts: how likely each label is wrong; NaN where nobody can tell.
        likely_classes: index of the class that each example most looks like; its own where nobody can tell.
        expected_accuracy: None where nobody can tell.
        alike: classes that can't be told apart, the most alike first.
    """

    doubts: tuple[float, ...]
    likely_classes: tuple[int, ...]
    expected_accuracy: ExpectedAccuracy | None
    alike: tuple[AlikeClasses, ...]

    @property
    def judged(self) -> int:
        """How many examples the others were asked about."""
        return 0 if self.expected_accuracy is None else self.expected_accuracy.examples

    @property
    def doubtful(self) -> int:
        """How many of them pass for doubtful."""
        return sum(doubt >= DOUBTFUL_FROM for doubt in self.doubts)


def left_out_parts(y: NDArray[np.int64], most: int = MOST_PARTS) -> list[NDArray[np.intp]]:
    """Places of the examples that are left out together in each task, so that every class keeps some.

    Each example that is not the only one of its class is left out once: alone if there are at most `most`, otherwise
    with others, as few of its own class as possible.

    Args:
        y: class indices [S].
        most: most tasks, two at least.

    >>> [part.tolist() for part in left_out_parts(np.array([1, 0, 1, 2, 0]))]
    [[1], [4], [0], [2]]
    >>> [part.tolist() for part in left_out_parts(np.array([1, 0, 1, 2, 0]), most=2)]
    [[1, 0], [4, 2]]
    """
    places = np.argsort(y, kind="stable")  # examples of a class, one after another, come into different parts
    judged = places[np.bincount(y)[y[places]] > 1]
    count = min(len(judged), most)
    return [judged[part::count] for part in range(count)]


def doubts_of(
    of_label: NDArray[np.floating[Any]], ways: int, wrong_share: float = WRONG_SHARE
) -> NDArray[np.floating[Any]]:
    """How likely labels are wrong, by Bayes' rule, if a wrong one is that of any other class as often.

        doubt = s (1 - p) / (s (1 - p) + (1 - s) (W - 1) p)

    Args:
        of_label: probability p of each label by what the others say.
        ways: number of classes W.
        wrong_share: share s of labels that is supposed to be wrong.

    >>> doubts_of(np.array([1.0, 0.2, 0.01, 0.0]), ways=5).round(2).tolist()
    [0.0, 0.1, 0.73, 1.0]
    """
    wrong = wrong_share * (1 - of_label)
    result: NDArray[np.floating[Any]] = wrong / (wrong + (1 - wrong_share) * (ways - 1) * of_label)
    return result


def diagnose(y: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> Diagnosis:
    """What the others say of each example.

        doubt: see `doubts_of`
        confusion of a and b = (mean of p(b) / (p(a) + p(b)) over examples of a + the same with a and b exchanged) / 2

    Args:
        y: class indices [S].
        probabilities: of the classes for each example by a task without it [S, W]; NaN where there is no such task.
    """
    places = np.arange(len(y))
    judged = ~np.isnan(probabilities[:, 0])
    likely = np.where(judged, np.nan_to_num(probabilities, nan=-1.0).argmax(1), y)
    doubts = doubts_of(probabilities[places, y].astype(np.float64), probabilities.shape[1])
    return Diagnosis(
        tuple(doubts.tolist()),
        tuple(likely.tolist()),
        _expected_accuracy(int((likely == y)[judged].sum()), int(judged.sum())),
        _alike(y[judged], probabilities[judged].astype(np.float64)),
    )


def _expected_accuracy(right: int, asked: int) -> ExpectedAccuracy | None:
    """With the interval of Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927."""
    if not asked:
        return None
    share, squared = right / asked, DEVIATIONS**2
    middle = (share + squared / (2 * asked)) / (1 + squared / asked)
    half = DEVIATIONS / (1 + squared / asked) * math.sqrt(share * (1 - share) / asked + squared / (4 * asked**2))
    return ExpectedAccuracy(share, max(middle - half, 0.0), min(middle + half, 1.0), asked)


def _alike(y: NDArray[np.int64], probabilities: NDArray[np.float64]) -> tuple[AlikeClasses, ...]:
    ways = probabilities.shape[1] if len(y) else 0
    means = np.full((ways, ways), np.nan)  # [of examples of, for]
    for way in np.unique(y):
        of_class = probabilities[y == way]
        both = of_class + of_class[:, way, None]
        means[way] = np.divide(of_class, both, out=np.full_like(both, 0.5), where=both > 0).mean(0)
    confusion = np.triu((means + means.T) / 2, 1)  # NaN where a class has no example to ask about
    pairs = np.argwhere(confusion >= ALIKE_FROM)
    found = [AlikeClasses(int(first), int(second), float(confusion[first, second])) for first, second in pairs]
    return tuple(sorted(found, key=lambda pair: -pair.confusion))
