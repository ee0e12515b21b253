"""Errors whose message is for the user; anything else is a defect."""

from innerloop_learner.encoders import EncoderError
from innerloop_learner.learner import TaskError
from innerloop_learner.manifest import BundleError
from innerloop_learner.registry import UnknownNameError
from innerloop_learner.settings import SettingsError
from innerloop_learner.signatures import KeyFileError
from innerloop_trainer.calibration import CalibrationError
from innerloop_trainer.config import ConfigError
from innerloop_trainer.data import DataError
from innerloop_trainer.evaluation import EvaluationError
from innerloop_trainer.runs.folder import RunError
from innerloop_trainer.runs.initial_parameters import InitialParametersError
from innerloop_trainer.runs.training import DivergedError
from innerloop_trainer.search import SearchError
from innerloop_trainer.seen_classes import SeenClassesError
from innerloop_trainer.teaching import TeacherError

MISTAKES = (
    BundleError,
    CalibrationError,
    ConfigError,
    DataError,
    DivergedError,
    EncoderError,
    EvaluationError,
    InitialParametersError,
    KeyFileError,
    OSError,
    RunError,
    SearchError,
    SeenClassesError,
    SettingsError,
    TaskError,
    TeacherError,
    UnknownNameError,
)
