"""Answers: arrays decoded once, single predictions made when somebody looks at them."""

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from innerloop.errors import InnerloopError, InvalidArgumentError, MissingAnswerError
from innerloop.tensors import Array, decode_tensor
from innerloop.timings import Timings
from innerloop.v1 import adaptation_pb2 as pb

RATE_ROUNDING = 1e-6
"""Rates travel as float32."""

_Field = Literal["probabilities", "logits", "values", "known", "label_sets", "variances", "intervals"]

_HINTS = {
    ("logits", "classification"): "; ask for them with return_logits=True",
    ("known", "classification"): ": the model is not calibrated for that; `innerloop calibrate` makes a bundle that is",
    ("label_sets", "classification"): "; ask for them with coverage=0.95 for example",
    ("variances", "regression"): ": the model is not calibrated for them; `innerloop calibrate` makes a bundle that is",
    ("intervals", "regression"): "; ask for them with coverage=0.95 for example",
}


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
    def known(self) -> Array:
        """Classification by a calibrated model: the probability that each query is of one of the classes, float32 [Q].

        It supposes that half of all queries are.
        """
        return self._decode("known")

    @cached_property
    def label_sets(self) -> list[tuple[Any, ...]]:
        """Classification, where asked for with `coverage`: the set of labels of each query, the most probable first.

        Sets hold the true label for that share of queries. One is empty where no label is as probable as true labels
        usually are.
        """
        members = self._decode("label_sets")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")
        return [
            tuple(self.classes[column] for column in columns if row[column])
            for row, columns in zip(members, order.tolist(), strict=True)
        ]

    @cached_property
    def variances(self) -> Array:
        """Regression by a calibrated model: how far true values lie from these, squared, on average; float32 [Q, D].

        That is over queries of tasks of this size that the model was not trained on, and the same for all of them.
        """
        return self._decode("variances")

    @cached_property
    def intervals(self) -> Array:
        """Regression, where asked for with `coverage`: lower and upper ends, float32 [Q, D, 2]."""
        return self._decode("intervals")

    def passes_for_known(self, false_alarms: float = 0.05) -> NDArray[np.bool_]:
        """Whether each query passes for one of the classes, [Q], where a share `false_alarms` of those that are do not.

        Raises:
            MissingAnswerError: the model is not calibrated, or not for queries of other classes; or this is a
                regression.
            InvalidArgumentError: the model has no threshold for that rate.
        """
        self.known  # noqa: B018 - raises where the answers have none
        passed = [decode_tensor(message.known) >= _threshold(message, false_alarms) for message in self._messages]
        return np.concatenate(passed)

    @cached_property
    def labels(self) -> list[Any]:
        """Classification: the most probable label of each query."""
        return [self.classes[column] for column in self.probabilities.argmax(1).tolist()]

    @property
    def timings(self) -> Timings:
        """The time that the server spent in each phase, added up if the queries took several requests."""
        return Timings(*map(sum, zip(*map(Timings.from_message, self._timings), strict=True)))

    def message_of(self, row: int) -> pb.Predictions:
        """The message that answers a query."""
        for message in self._messages:
            size = message.probabilities.shape[0] if self.classes else message.values.shape[0]
            if row < size:
                return message
            row -= size
        raise IndexError(row)

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

    def _decode(self, field: _Field) -> Array:
        if not all(message.HasField(field) for message in self._messages):
            kind = "classification" if self.classes else "regression"
            hint = _HINTS.get((field, kind), "")
            raise MissingAnswerError(f"these answers to a {kind} task carry no {field.replace('_', ' ')}{hint}")
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
    def known(self) -> float:
        """Classification by a calibrated model: the probability that the query is of one of the classes at all.

        Raises:
            MissingAnswerError: the model is not calibrated, or this is a regression.
        """
        return float(self._answers.known[self._row])

    def label_or(self, otherwise: Any, *, false_alarms: float = 0.05) -> Any:
        """The most probable label, or `otherwise` where the query passes for none of the classes.

        Args:
            otherwise: what stands for an unknown query, for example None.
            false_alarms: the share of queries that are of the classes and pass for unknown nevertheless, one of those
                that the model has thresholds for: 0.01, 0.02, 0.05, 0.1 or 0.2.

        Raises:
            MissingAnswerError, InvalidArgumentError: see `Predictions.passes_for_known`.
        """
        known = self._answers.known[self._row]  # raises where the answers have none
        return self.label if known >= _threshold(self._answers.message_of(self._row), false_alarms) else otherwise

    @property
    def label_set(self) -> tuple[Any, ...]:
        """Classification, where asked for with `coverage`: the labels of the set, the most probable first."""
        return self._answers.label_sets[self._row]

    @property
    def interval(self) -> tuple[float, float]:
        """Regression of one value, where asked for with `coverage`: lower and upper end.

        Raises:
            MissingAnswerError: no coverage was asked for, there are several values, or this is a classification.
        """
        ends = self.intervals
        if len(ends) != 1:
            raise MissingAnswerError(f"this answer has {len(ends)} values; read `intervals`")
        return float(ends[0, 0]), float(ends[0, 1])

    @property
    def intervals(self) -> Array:
        """Regression, where asked for with `coverage`: lower and upper ends of all D values, float32 [D, 2]."""
        row: Array = self._answers.intervals[self._row]
        return row

    @property
    def variance(self) -> float:
        """Regression of one value by a calibrated model: how far the true value lies from it, squared, on average.

        Raises:
            MissingAnswerError: the model is not calibrated, there are several values, or this is a classification.
        """
        return self._only(self.variances, "variances")

    @property
    def variances(self) -> Array:
        """Regression by a calibrated model: the same of all D values, float32 [D]."""
        row: Array = self._answers.variances[self._row]
        return row

    @property
    def value(self) -> float:
        """Regression of one value: the value.

        Raises:
            MissingAnswerError: there are several, see `values`; or this is a classification.
        """
        return self._only(self.values, "values")

    @property
    def values(self) -> Array:
        """Regression: all D values, float32 [D]."""
        row: Array = self._answers.values[self._row]
        return row

    def _only(self, of_values: Array, name: str) -> float:
        if len(of_values) != 1:
            raise MissingAnswerError(f"this answer has {len(of_values)} values; read `{name}`")
        return float(of_values[0])

    def __repr__(self) -> str:
        if self._answers.classes:
            return f"Prediction(label={self.label!r}, probability={self.probability:.4f})"
        return f"Prediction(values={self.values.tolist()!r})"


def _threshold(message: pb.Predictions, false_alarms: float) -> float:
    """The value of `known` below which a query passes for unknown at a rate of false alarms."""
    for rate, threshold in zip(message.false_alarms, message.known_thresholds, strict=True):
        if abs(rate - false_alarms) < RATE_ROUNDING:
            return threshold
    rates = ", ".join(f"{rate:g}" for rate in message.false_alarms)
    raise InvalidArgumentError(f"there is no threshold for {false_alarms:g} false alarms; there are those for {rates}")
