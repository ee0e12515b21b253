"""Results that callers get."""

from dataclasses import dataclass

from innerloop_learner.diagnosis import Diagnosis
from innerloop_server.domain.adaptations import Adaptation
from innerloop_server.domain.answers import Answers
from innerloop_server.domain.timings import Timings


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """The adaptation that an Adapt request made, or had made before, and the diagnosis that it asked for, if any."""

    adaptation: Adaptation
    timings: Timings
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class PredictResult:
    """Answers of an adaptation, and its labels by class index."""

    answers: Answers
    classes: tuple[str, ...]
    timings: Timings


@dataclass(frozen=True, slots=True)
class AdaptPredictResult:
    """Answers to the queries of a task, and the adaptation that keeps its state if one does."""

    answers: Answers
    adaptation: Adaptation | None
    timings: Timings
