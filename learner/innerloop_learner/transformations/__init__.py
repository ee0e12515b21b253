"""Random transformations of features in training, which leave no trace in serving; registered by name.

A transformation takes parameters of the backbone and gives those of a backbone whose features vary as they would from
one domain to another. Its strengths are parameters of training alone, beside those of the objective.
"""

from innerloop_learner.transformations import feature_wise
from innerloop_learner.transformations.transformation import Transformation, build_transformation, transformations

__all__ = ["Transformation", "build_transformation", "feature_wise", "transformations"]
