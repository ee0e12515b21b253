"""What a search is to do, and how far it has come."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from innerloop_learner.settings import described
from innerloop_trainer.config import TrainingConfig
from innerloop_trainer.runs.training import Report
from innerloop_trainer.search.log import Tried
from innerloop_trainer.search.searchers import searchers


@dataclass(frozen=True)
class SearchConfig:
    """The configuration of a search as plain data.

    Attributes:
        searcher: registered name of the searcher.
        space: registered name of the space of architectures.
        training: configuration of the run of every architecture. Its seed is that of the searcher, too; its backbone
            is ignored.
        trials: number of architectures to train; None for as many as is usual for the searcher.
        settings: settings of the searcher by name.
        most_multiply_adds: most multiplications with additions that an architecture may take for an example; None for
            any number.
    """

    searcher: str
    space: str
    training: TrainingConfig
    trials: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    most_multiply_adds: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class SearchReport:
    """The progress of a search, for progress bars.

    Attributes:
        trial: number of the trial that is trained, from 1; 0 for the network that is trained before the first one.
        trials: number of trials in all.
        training: progress of its training; None where it ended.
        total: number of outer steps of its training.
        tried: the architecture, if its training ended with this report.
        best: the best architecture so far, with its accuracy; None before there is any.
    """

    trial: int
    trials: int
    training: Report | None
    total: int
    tried: Tried | None
    best: Tried | None


def divide_settings(searcher: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name, divided into those of the searcher and those of the method and its training.

    Raises:
        UnknownNameError: there is no searcher of this name.
    """
    own = {each.name for each in described(searchers[searcher].settings_class)}
    of_searcher = {name: value for name, value in settings.items() if name in own}
    return of_searcher, {name: value for name, value in settings.items() if name not in own}
