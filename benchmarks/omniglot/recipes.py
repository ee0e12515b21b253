"""How each method is trained on Omniglot within a CPU's budget, and what its paper reports."""

from dataclasses import dataclass

STRIDED = ("--backbone-set", "downsample=stride")
"""The network of MAML's Omniglot experiments: strides in place of pooling, a quarter of the arithmetic."""

SMALL_STEPS = ("--meta-batch", "8", "--queries", "3", "--learning-rate", "0.002")
"""Many small outer steps reach 93% on a CPU in a quarter of the time that MAML's own settings take."""

SMALL_WIDE_STEPS = ("--meta-batch", "4", "--queries", "2", "--learning-rate", "0.002")

FIVE_SHOTS = (
    ("--iterations", "1000", "--meta-batch", "8", "--queries", "3", "--learning-rate", "0.001"),
    ("--iterations", "800", "--meta-batch", "4", "--queries", "2", "--learning-rate", "0.001"),
)


@dataclass(frozen=True)
class Recipe:
    """Options of `innerloop train`.

    Attributes:
        five: of the run for 5 ways.
        twenty: of the run for 20 ways; None where the first run serves them too.
        continued: whether the run for 20 ways starts from what the other one learned: from random parameters some
            methods spend this budget before they learn anything.
        five_shots: of runs that go on with five shots, for 5 and for 20 ways, where a model of one shot makes little of
            more: a sequence five times as long as any that it saw.
        paper: accuracies in percent that the paper reports for 5w1s, 5w5s, 20w1s, 20w5s, if it does.
        transductive: whether those let queries normalise each other.
        paper_inductive: what it reports without that, too, if it does.
    """

    five: tuple[str, ...]
    twenty: tuple[str, ...] | None = None
    continued: bool = False
    five_shots: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    paper: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)
    transductive: bool = False
    paper_inductive: tuple[float | None, float | None, float | None, float | None] = (None, None, None, None)

    @property
    def reported(self) -> dict[str, tuple[float | None, ...]]:
        """Figures of the paper, by protocol."""
        if self.transductive:
            return {"inductive": self.paper_inductive, "transductive": self.paper}
        return {"inductive": self.paper}


def _gradient(steps: int, rate: float, five: int, twenty: int, **known: tuple[float | None, ...]) -> Recipe:
    """A method with an inner loop: steps, rate, and outer steps for 5 and for 20 ways."""
    inner = ("--steps", str(steps), "--set", f"rate={rate}")
    return Recipe(
        ("--iterations", str(five), *inner, *SMALL_STEPS),
        ("--iterations", str(twenty), *inner, *SMALL_WIDE_STEPS),
        transductive=True,
        **known,
    )


def _learned_optimizer(five: int, twenty: int, learning_rate: float) -> Recipe:
    """Learned optimizers adapt the head alone: they cost thousands of operations per weight and step."""
    options = ("--steps", "5", "--set", "adapts=head", "--set", "rate=0.1", "--learning-rate", str(learning_rate))
    return Recipe(
        ("--iterations", str(five), *options, "--meta-batch", "8", "--queries", "3"),
        ("--iterations", str(twenty), *options, "--meta-batch", "4", "--queries", "2"),
    )


RECIPES = {
    "maml": _gradient(1, 0.4, 8000, 2500, paper=(98.7, 99.9, 95.8, 98.9)),
    "fomaml": _gradient(5, 0.1, 10000, 2000, paper=(98.3, 99.2, 89.4, 97.9)),
    "reptile": Recipe(
        ("--iterations", "20000", "--learning-rate", "0.002"),
        ("--iterations", "1500", "--learning-rate", "0.002", "--set", "batch=20", "--queries", "5"),
        paper=(97.68, 99.48, 89.43, 97.12),
        transductive=True,
        paper_inductive=(95.39, 98.90, 88.14, 96.65),
    ),
    "maml++": _gradient(3, 0.2, 5000, 1200, paper=(99.47, 99.85, 97.65, 99.33)),
    "meta-sgd": _gradient(1, 0.4, 8000, 2500, paper=(99.5, 99.9, 95.9, 99.0)),
    "anil": _gradient(5, 0.1, 10000, 3500, paper=(None, None, 96.2, 98.0)),
    "boil": _gradient(1, 0.4, 6000, 2500),
    "lstm-optimizer": _learned_optimizer(8000, 2000, 0.002),
    # Gates begin as plain gradient descent; with a lower outer rate they hardly leave it.
    "meta-lstm": _learned_optimizer(6000, 2500, 0.006),
    "siamese": Recipe(("--iterations", "6000"), paper=(97.3, 98.4, 88.1, 97.0)),
    "matching": Recipe(("--iterations", "6000"), paper=(98.1, 98.9, 93.8, 98.5)),
    "matching-fce": Recipe(("--iterations", "6000")),
    "protonet": Recipe(("--iterations", "5000"), paper=(98.8, 99.7, 96.0, 98.9)),
    "relation": Recipe(("--iterations", "6000"), paper=(99.6, 99.8, 97.6, 99.1)),
    "knn": Recipe(("--iterations", "3000")),
    "mann": Recipe(
        ("--iterations", "4000", *SMALL_STEPS),
        ("--iterations", "2000", *SMALL_WIDE_STEPS),
        continued=True,
        five_shots=FIVE_SHOTS,
        paper=(82.8, 94.9, None, None),
    ),
    "snail": Recipe(
        ("--iterations", "6000", *SMALL_STEPS, "--set", "filters=64", "--set", "context=8"),
        ("--iterations", "2000", *SMALL_WIDE_STEPS, "--set", "filters=64", "--set", "context=8"),
        continued=True,
        five_shots=(
            (*FIVE_SHOTS[0], "--set", "filters=64", "--set", "context=8"),
            (*FIVE_SHOTS[1], "--set", "filters=64", "--set", "context=8"),
        ),
        paper=(99.07, 99.78, 97.64, 99.36),
    ),
    "meta-networks": Recipe(
        ("--iterations", "5000", *SMALL_STEPS),
        ("--iterations", "2000", *SMALL_WIDE_STEPS),
        paper=(99.0, None, 97.0, None),
    ),
    "cnaps": Recipe(("--iterations", "4000")),
    "r2d2": Recipe(("--iterations", "5000")),
    "lr-d2": Recipe(("--iterations", "5000")),
    "scratch": Recipe((), ()),
    "baseline": Recipe(("--iterations", "3000")),
    "baseline++": Recipe(("--iterations", "3000")),
    "nearest-centroid": Recipe(("--iterations", "3000")),
}
