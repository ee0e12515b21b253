"""How many tasks a run is measured with, if nobody says otherwise."""

from innerloop_trainer.outer_loop import defaults_of

FEWEST_TASKS = 100
"""Tasks that a run is measured with at least: without so many, a calibration can't promise a coverage of 99%."""

USUAL_VALIDATION, USUAL_TEST = 200, 600
"""Tasks of a validation and of the final test in runs that are not short."""


def is_short(method: str, iterations: int) -> bool:
    """Whether a run is so short that measuring it with FEWEST_TASKS is a large part of it."""
    return iterations < min(FEWEST_TASKS, defaults_of(method).iterations)


def tasks_to_measure(method: str, iterations: int | None, most: int) -> int:
    """The number of tasks that measure a run: that of its outer steps, but FEWEST_TASKS at least and `most` at most.

    A run that is as long as usual for its method is measured with `most`. A short run, of which nobody expects much,
    thus takes no longer to measure than to train.

    >>> [tasks_to_measure("maml", iterations, 600) for iterations in (20, 300, 5000, None)]
    [100, 300, 600, 600]
    >>> tasks_to_measure("scratch", 1, 600)
    600

    Args:
        method: registered name of the method.
        iterations: outer steps of the run; None for as many as usual for the method.
        most: tasks that measure a run of usual length.
    """
    if iterations is None or iterations >= defaults_of(method).iterations:
        return most
    return min(max(iterations, FEWEST_TASKS), most)
