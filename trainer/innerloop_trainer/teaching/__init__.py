"""Distillation: a learner is trained by the answers of others that are trained already, and serves without them.

`Teachers` answer the queries of an episode, and `Distillation` is the objective of their student. A teaching, which is
registered by name, says what of the teachers is learned too; the estimator `pilot` learns it.
"""

from innerloop_trainer.teaching import head, plain, temperature
from innerloop_trainer.teaching.distillation import Distillation
from innerloop_trainer.teaching.teachers import NO_TEACHERS, TeacherError, Teachers
from innerloop_trainer.teaching.teaching import DistillationSettings, Teaching, teachings

__all__ = [
    "NO_TEACHERS",
    "Distillation",
    "DistillationSettings",
    "TeacherError",
    "Teachers",
    "Teaching",
    "head",
    "plain",
    "teachings",
    "temperature",
]
