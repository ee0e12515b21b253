"""Decides which architectures a search may try."""

from collections.abc import Callable

from innerloop_learner.backbones import Backbone
from innerloop_learner.settings import SettingsError
from innerloop_trainer.search.arithmetic import multiply_adds
from innerloop_trainer.search.spaces import Architecture


class Admission:
    """Admits architectures that can be built for the inputs, and that take no more arithmetic than is allowed.

    Args:
        build: function that builds the backbone of an architecture.
        input_shape: shape of one example.
        most: most multiplications with additions for an example; None for any number.
    """

    def __init__(
        self, build: Callable[[Architecture], Backbone], input_shape: tuple[int, ...], most: int | None
    ) -> None:
        self._build, self._shape, self._most = build, input_shape, most
        self._known: dict[Architecture, bool] = {}
        self._least: int | None = None
        self._mistake = ""

    def admits(self, architecture: Architecture) -> bool:
        """Whether an architecture may be tried."""
        if architecture not in self._known:
            self._known[architecture] = self._examine(architecture)
        return self._known[architecture]

    def refusal(self) -> str:
        """Why no architecture was admitted."""
        if self._least is None:
            return f"no architecture of this space can be built: {self._mistake}"
        return (
            f"of the architectures drawn none takes as little as {self._most:,} multiply-adds, the least of them "
            f"{self._least:,}; raise --most-multiply-adds"
        )

    def _examine(self, architecture: Architecture) -> bool:
        try:
            backbone = self._build(architecture)
        except SettingsError as error:
            self._mistake = str(error)
            return False
        if self._most is None:
            return True
        taken = multiply_adds(backbone, self._shape)
        self._least = taken if self._least is None else min(self._least, taken)
        return taken <= self._most
