"""Examples that can't be used and classes that are too small: refused unless a user leaves them out."""

from collections.abc import Sequence
from dataclasses import dataclass

from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.options import FLAG, option, whole_number
from innerloop_trainer.data.source import DataError


@dataclass(frozen=True)
class SmallClassOptions:
    """What of a user's own data may be left out."""

    min_examples: int = option(0, whole_number(0), "Leave out classes with fewer examples than this.")
    skip_broken: bool = option(False, FLAG, "Leave out examples that can't be read, instead of refusing them.")


def leave_out_small(source: str, data: ExampleSet, options: SmallClassOptions) -> tuple[ExampleSet, Sequence[str]]:
    """The classes that are large enough, and what is to be said of the others.

    Args:
        source: its name, for messages.
        data: all classes.
        options: how many examples a class must have.

    Raises:
        DataError: a class has no examples, and such classes may not be left out.
    """
    needed = max(1, options.min_examples)
    small = [name for name, count in zip(data.names, data.counts, strict=True) if count < needed]
    if not small:
        return data, ()
    named = ", ".join(small[:10]) + (f" and {len(small) - 10:,} more" if len(small) > 10 else "")
    if not options.min_examples:
        raise DataError(
            f"{source}: no example of {named} can be read; add some, or leave such classes out with ?min_examples=1"
        )
    kept = data.select([name for name in data.names if name not in set(small)])
    classes = f"{len(small):,} class{'es' if len(small) > 1 else ''}"
    return kept, [f"{classes} with fewer than {needed} examples left out: {named}"]
