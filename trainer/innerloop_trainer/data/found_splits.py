"""Divides classes that lie in folders: by the folders of splits if there are any, otherwise by seed."""

from collections.abc import Mapping

from innerloop_trainer.data.class_folders import Classes
from innerloop_trainer.data.class_split import SplitOptions, Splits, hold_out, split_by_seed, split_domains
from innerloop_trainer.data.example_set import ExampleSet
from innerloop_trainer.data.source import DataError, SourceRequest


def split_found(
    request: SourceRequest, options: SplitOptions, found: Mapping[str, Classes], data: ExampleSet
) -> tuple[Splits, str]:
    """The splits of the classes of `data`, and a description of how they were divided; domains are divided whole.

    Args:
        request: the parsed text that names the source.
        options: options of the source.
        found: classes of each split, or all under the name "", as in `ClassFolders.splits`.
        data: the classes that are used.

    Raises:
        DataError: options that divide classes are given where folders do, or no class is left to train on.
    """
    if "" in found:
        return divide(options, data)
    kept = set(data.names)
    splits = {split: [name for name in classes if name in kept] for split, classes in found.items()}
    for key in ("test", "val", "seed", "order") if "validation" in found else ("test",):
        if key in request.options:
            raise DataError(f"{request.name}: {key} has no effect where folders are the splits; leave it")
    if "validation" in found:
        return splits, "by folder"
    how = "in the order of their names" if options.order == "name" else f"with seed {options.seed}"
    return hold_out(request.name, options, splits), (
        f"by folder, validation classes held out of those for training {how}"
    )


def divide(options: SplitOptions, data: ExampleSet) -> tuple[Splits, str]:
    """Divide classes by seed, or whole domains if there are any; returns what `split_by_seed` does."""
    if data.domains is None:
        return split_by_seed(options, list(data.names))
    return split_domains(options, dict(zip(data.names, data.domains, strict=True)))
