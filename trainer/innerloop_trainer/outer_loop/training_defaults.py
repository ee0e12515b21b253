"""How each method is meta-trained unless the user says otherwise."""

from dataclasses import dataclass, replace

from innerloop_learner.registry import Registry

SERVING_WAYS = 64
"""Most classes that a request may have where the method itself sets no limit."""


@dataclass(frozen=True)
class TrainingDefaults:
    """How a method is meta-trained unless the user says otherwise.

    Attributes:
        ways: classes per training episode; None for as many as in test tasks.
        queries: queries per class.
        meta_batch: tasks per outer step.
        iterations: outer steps.
        learning_rate: learning rate of Adam, annealed to zero along a cosine.
        gradient_clip: largest norm of the meta-gradient.
        norm: registered name of the backbone's norm.
        estimator: registered name of the estimator of the meta-gradient.
        unlabelled: whether it learns from images without labels.
        max_ways: most classes that a request may have, of methods that take any number.
    """

    ways: int | None = None
    queries: int = 15
    meta_batch: int = 16
    iterations: int = 5000
    learning_rate: float = 1e-3
    gradient_clip: float = 10.0
    norm: str = "task"
    estimator: str = "backpropagation"
    unlabelled: bool = False
    max_ways: int = SERVING_WAYS


training_defaults: Registry[TrainingDefaults] = Registry("training default", "innerloop.training_defaults")
"""Training defaults of each method by its name; methods that are not listed get `TrainingDefaults()`."""

_PRE_TRAINING = TrainingDefaults(ways=60, queries=2, meta_batch=1, iterations=10000, norm="batch")
_MANY_WAYS = TrainingDefaults(ways=20, queries=5, meta_batch=2, iterations=6000, norm="batch")
_MEMORY = TrainingDefaults(queries=3, norm="batch")

_LIFELONG = TrainingDefaults(ways=20, queries=1, meta_batch=1, iterations=8000, norm="batch", max_ways=1000)

_OWN = {
    "anml": _LIFELONG,
    "baseline": _PRE_TRAINING,
    "baseline++": _PRE_TRAINING,
    "cnaps": _MANY_WAYS,
    "imaml": TrainingDefaults(estimator="implicit"),
    "knn": _PRE_TRAINING,
    "lr-d2": replace(_MANY_WAYS, iterations=5000),
    "lstm-optimizer": TrainingDefaults(meta_batch=4, queries=3),
    "maml++": TrainingDefaults(meta_batch=8),
    "mann": _MEMORY,
    "matching": replace(_MANY_WAYS, ways=60, meta_batch=1),
    "matching-fce": _MANY_WAYS,
    "meta-lstm": TrainingDefaults(meta_batch=4, queries=3),
    "meta-networks": _MEMORY,
    "nearest-centroid": _PRE_TRAINING,
    "oml": _LIFELONG,
    "partial-maml": TrainingDefaults(estimator="reinforce"),
    "protonet": replace(_MANY_WAYS, ways=60, meta_batch=1, iterations=3000),
    "r2d2": replace(_MANY_WAYS, iterations=5000),
    "relation": replace(_MANY_WAYS, meta_batch=1),
    "reptile": TrainingDefaults(queries=10, meta_batch=5, iterations=20000, estimator="reptile"),
    "scratch": TrainingDefaults(iterations=1, meta_batch=1, estimator="nothing"),
    "siamese": _MANY_WAYS,
    "simclr": replace(_PRE_TRAINING, ways=128, iterations=5000, unlabelled=True),
    "snail": _MEMORY,
}
for _method, _defaults in _OWN.items():
    training_defaults.register(_method)(_defaults)


def defaults_of(method: str) -> TrainingDefaults:
    """How a method is meta-trained unless the user says otherwise."""
    return training_defaults[method] if method in training_defaults else TrainingDefaults()
