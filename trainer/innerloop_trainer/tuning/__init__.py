"""Tunes settings of a recipe: trains with many, stops what falls behind, and keeps what validates best.

`dimension` is what one setting is searched in, `folder` a study on disk, which several processes share, and `tuning`
the study itself. Optuna proposes settings and decides what is stopped.
"""

from innerloop_trainer.tuning.dimension import Dimension, read_dimensions
from innerloop_trainer.tuning.folder import TuningError, TuningFolder
from innerloop_trainer.tuning.tuning import Tried, Tuning, TuningReport

__all__ = ["Dimension", "Tried", "Tuning", "TuningError", "TuningFolder", "TuningReport", "read_dimensions"]
