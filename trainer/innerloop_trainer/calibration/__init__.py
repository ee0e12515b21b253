"""Makes answers honest: measures how sure a model may be, on classes that it was not trained on.

`open_episodes` adds queries of classes that a task doesn't have, `answers` collects what a model says, `fit` makes the
figures that a bundle keeps, `measure` says how well they hold on other classes, and `calibrate` puts these together.
"""

from innerloop_trainer.calibration.answers import ClassAnswers, answers_of_classes
from innerloop_trainer.calibration.calibrate import (
    CalibrationError,
    calibrate,
    calibrate_bundle,
    usual_sizes,
)
from innerloop_trainer.calibration.measure import Honesty, honesty, measure_honesty

__all__ = [
    "CalibrationError",
    "ClassAnswers",
    "Honesty",
    "answers_of_classes",
    "calibrate",
    "calibrate_bundle",
    "honesty",
    "measure_honesty",
    "usual_sizes",
]
