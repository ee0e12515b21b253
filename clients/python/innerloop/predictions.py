"""Answers: arrays decoded once, single predictions made when somebody looks at them."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np

from innerloop.errors import InnerloopError, MissingAnswerError
from innerloop.tensors import Array, decode_tensor
from innerloop.timings import Timings
from innerloop.v1 import adaptation_pb2 as pb


class Predictions(Sequence["Prediction"]):
    """Answers to Q queries: a sequence of Prediction, with the same as read-only arrays.

    A regression has no labels, probabilities or logits, a classification no values: asking for those raises
    MissingAnswerError, which is an AttributeError.

    Example:
        >>> import numpy as np
        >>> from innerloop.tensors import encode_tensor
        >>> message = pb.Predictions(classes=["cat", "dog"], probabilities=encode_tensor(np.array([[0.25, 0.75]])))
        >>> answers = Predictions(message, {}, pb.Timings())
        >>> answers.labels, answers[0].label, answers[0].probabilities
        (['dog'], 'dog', {'cat': 0.25, 'dog': 0.75})
    """

    def __init__(
        self,
        message: pb.Predictions,
        labels: Mapping[str, Any],
        timings: pb.Timings,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Wrap what came over the wire.

        Args:
            message: the answers.
            labels: the caller's own objects for names of classes; a name without one stands for itself.
            timings: what the server measured.
            class_names: names of the classes, where the message leaves them out.
        """
        self._messages = [message]
        self._timings = [timings]
        names = message.classes if class_names is None else class_names
        self.classes: tuple[Any, ...] = tuple(labels.get(name, name) for name in names)
        """The W labels, in the column order of the arrays; empty for regression."""

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Answers to queries that were asked one part after another.

        Raises:
            InnerloopError: they are in terms of different classes.
        """
        whole = copy(parts[0])
        if any(part.classes != whole.classes for part in parts):
            raise InnerloopError("the classes of the adaptation changed while its queries were answered; ask again")
        whole._messages = [message for part in parts for message in part._messages]
        whole._timings = [timings for part in parts for timings in part._timings]
        return whole

    @cached_property
    def probabilities(self) -> Array:
        """Classification: float32 [Q, W]."""
        return self._decode("probabilities")

    @cached_property
    def logits(self) -> Array:
        """Classification, where asked for with `return_logits`: float32 [Q, W]."""
        return self._decode("logits")

    @cached_property
    def values(self) -> Array:
        """Regression: float32 [Q, D]."""
        return self._decode("values")

    @cached_property
    def labels(self) -> list[Any]:
        """Classification: the most probable label of each query."""
        return [self.classes[column] for column in self.probabilities.argmax(1).tolist()]

    @property
    def timings(self) -> Timings:
        """The time that the server spent in each phase, added up if the queries took several requests."""
        return Timings(*map(sum, zip(*map(Timings.from_message, self._timings), strict=True)))

    def __len__(self) -> int:
        return len(self.probabilities if self.classes else self.values)

    @overload
    def __getitem__(self, index: int) -> "Prediction": ...
    @overload
    def __getitem__(self, index: slice) -> "list[Prediction]": ...
    def __getitem__(self, index: int | slice) -> "Prediction | list[Prediction]":
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [Prediction(self, row) for row in rows]
        return Prediction(self, rows)

    def __repr__(self) -> str:
        return repr(list(self))

    def _decode(self, field: Literal["probabilities", "logits", "values"]) -> Array:
        if not all(message.HasField(field) for message in self._messages):
            kind = "classification" if self.classes else "regression"
            hint = "; ask for them with return_logits=True" if field == "logits" and self.classes else ""
            raise MissingAnswerError(f"these answers to a {kind} task carry no {field}{hint}")
        arrays = [decode_tensor(getattr(message, field)) for message in self._messages]
        if len(arrays) == 1:
            return arrays[0]
        array = np.concatenate(arrays)
        array.flags.writeable = False
        return array


class Prediction:
    """The answer to one query."""

    __slots__ = ("_answers", "_row")

    def __init__(self, answers: Predictions, row: int) -> None:
        self._answers = answers
        self._row = row

    @property
    def label(self) -> Any:
        """Classification: the most probable label, the object that the caller gave."""
        return self._answers.labels[self._row]

    @property
    def probability(self) -> float:
        """Classification: of `label`."""
        return float(self._answers.probabilities[self._row].max())

    @property
    def probabilities(self) -> dict[Any, float]:
        """Classification: of every label."""
        return dict(zip(self._answers.classes, self._answers.probabilities[self._row].tolist(), strict=True))

    @property
    def logits(self) -> dict[Any, float]:
        """Classification, where asked for: of every label."""
        return dict(zip(self._answers.classes, self._answers.logits[self._row].tolist(), strict=True))

    @property
    def value(self) -> float:
        """Regression of one value: the value.

        Raises:
            MissingAnswerError: there are several, see `values`; or this is a classification.
        """
        values = self.values
        if len(values) != 1:
            raise MissingAnswerError(f"this answer has {len(values)} values; read `values`")
        return float(values[0])

    @property
    def values(self) -> Array:
        """Regression: all D values, float32 [D]."""
        row: Array = self._answers.values[self._row]
        return row

    def __repr__(self) -> str:
        if self._answers.classes:
            return f"Prediction(label={self.label!r}, probability={self.probability:.4f})"
        return f"Prediction(values={self.values.tolist()!r})"
