"""The classes of a run, which must be the same when it is resumed."""

from collections.abc import Mapping

from innerloop_trainer.data import DataSource

RunClasses = Mapping[str, Mapping[str, str]]
"""Digest of the content of each class, by split and name."""

SHOWN = 3


def run_classes(source: DataSource) -> RunClasses:
    """The classes of a data source by split; none for regression."""
    splits = {"train": source.train, "validation": source.validation, "test": source.test}
    return {
        split: {name: digest.content for name, digest in sampler.digests.items()} for split, sampler in splits.items()
    }


def class_differences(theirs: RunClasses, ours: RunClasses) -> list[str]:
    """Describe how the classes of a run differ from those of the data; no text for a run that recorded none."""
    if not theirs:
        return []
    before, now = _by_name(theirs), _by_name(ours)
    changed = [_difference(name, before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())]
    found = [difference for difference in changed if difference]
    more = [f"{len(found) - SHOWN} more classes differ"] if len(found) > SHOWN else []
    return found[:SHOWN] + more


def _by_name(classes: RunClasses) -> dict[str, dict[str, str]]:
    """Digests of each class, by name and split."""
    by_name: dict[str, dict[str, str]] = {}
    for split, digests in classes.items():
        for name, digest in digests.items():
            by_name.setdefault(name, {})[split] = digest
    return by_name


def _difference(name: str, before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> str | None:
    if before is None:
        return f"class {name!r} is new"
    if now is None:
        return f"class {name!r} is missing"
    if before.keys() != now.keys():
        return f"class {name!r} was in the {' and '.join(before)} split, and is in the {' and '.join(now)} split"
    return f"class {name!r} has other examples" if before != now else None
