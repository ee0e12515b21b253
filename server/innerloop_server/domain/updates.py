"""Changes of the examples of adaptations."""

from dataclasses import dataclass

from innerloop_server.domain.adaptations import Adaptation
from innerloop_server.domain.models import ServedModel
from innerloop_server.domain.tasks import Array
from innerloop_server.domain.timings import Timings


@dataclass(frozen=True, slots=True)
class Edits:
    """A change of examples, without its arrays.

    Attributes:
        labels: of the added examples; empty for regression.
        remove: ids of examples.
        remove_classes: labels whose examples go.
        relabel: ids of examples that get other answers.
        new_labels: theirs; empty for regression.
        rename: old and new label of classes that get another name.
        whole: whether the added examples take the place of all those before.
    """

    labels: tuple[str, ...] = ()
    remove: tuple[int, ...] = ()
    remove_classes: tuple[str, ...] = ()
    relabel: tuple[int, ...] = ()
    new_labels: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    @property
    def only_adds(self) -> bool:
        """Whether all examples that were there stay as they are."""
        return not (self.remove or self.remove_classes or self.relabel or self.rename or self.whole)


@dataclass(frozen=True, slots=True)
class SupportUpdate:
    """A change of the examples of an adaptation.

    Attributes:
        edits: all of it but its arrays.
        x: raw inputs [N, *input] of the added examples, N being zero for none.
        targets: of the added examples, [N, D] float32, D being zero for classification.
        new_targets: of the examples that get other answers, [K, D] float32.
    """

    edits: Edits
    x: Array
    targets: Array
    new_targets: Array


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update shall be carried out.

    Attributes:
        request_id: names the request, so that repeating it changes nothing more; empty when it may.
        fingerprint: of the request's content.
        expected_revision: that the adaptation must have; zero for any.
        most: examples that it may have afterwards.
    """

    request_id: str
    fingerprint: bytes
    expected_revision: int
    most: int


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """A decoded UpdateAdaptation request.

    Attributes:
        model: that the examples were checked against.
        adaptation_id: of the adaptation that shall change.
        update: the change.
        options: how to carry it out.
    """

    model: ServedModel
    adaptation_id: str
    update: SupportUpdate
    options: UpdateOptions


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The adaptation after an update, and the ids of the examples that it added, if they are kept."""

    adaptation: Adaptation
    example_ids: tuple[int, ...]
    timings: Timings
