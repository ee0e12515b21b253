"""Data sources: where episodes come from.

`load_source("images:PATH?size=32")` names a source, a place and options. `load` takes the text apart and asks the
source, which is a file of its own (`images`, `audio`, `texts`, `omniglot`, `published_splits`, `glyphs`, `digits`,
`sinusoid`) and says in `options` what may be asked of it. Files are found and read by `file_tree` and `class_folders`,
or by `tables`; `decode` makes arrays of images and recordings, several `decoded_files` at a time, and `cache` keeps
them. `left_out` names what can't be used, `class_split` divides classes into training, validation and test, `speakers`
keeps speakers apart, and `class_digests` tells by which classes are known again.

What comes out is a `DataSource` of three splits: `class_examples` holds the examples of one on a device and draws
episodes of it. `unlabelled` draws them without labels, `augmented` changes images whenever they are drawn,
and `mixed` mixes whole tasks. `encoded` puts a frozen encoder in front of a whole source. `packing` writes a source to
disk, as `row_files` and a `pack_index`, and `packed` draws from there what does not fit in memory.

A new source is a new file that registers itself in `sources`, imported below, or an entry point of another
distribution.
"""

from innerloop_trainer.data import (  # noqa: F401 - they register themselves
    audio,
    digits,
    glyphs,
    images,
    omniglot,
    packed,
    published_splits,
    sinusoid,
    texts,
)
from innerloop_trainer.data.augmented import AugmentedTasks, read_augmentations, usual_augmentations
from innerloop_trainer.data.class_examples import ClassExamples, RawEpisodes
from innerloop_trainer.data.load import load_source
from innerloop_trainer.data.mixed import MixedTasks
from innerloop_trainer.data.packing import Packed, pack
from innerloop_trainer.data.source import (
    DataError,
    DataSource,
    EpisodeShape,
    SourceLoader,
    SourceRequest,
    TaskSampler,
    sources,
)

__all__ = [
    "AugmentedTasks",
    "ClassExamples",
    "DataError",
    "DataSource",
    "EpisodeShape",
    "MixedTasks",
    "Packed",
    "RawEpisodes",
    "SourceLoader",
    "SourceRequest",
    "TaskSampler",
    "load_source",
    "pack",
    "read_augmentations",
    "sources",
    "usual_augmentations",
]
