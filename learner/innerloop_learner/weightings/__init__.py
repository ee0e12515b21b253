"""What each support example counts when adapting, beside the weight of its class; registered by name.

Class weights follow from numbers of examples alone (`Learner.example_weights`). A weighting looks at the examples, and
lets one count less that does not look like its class: it may be mislabelled. Its parameters are meta-learned with the
learner's, on tasks of which some labels are wrong.
"""

from innerloop_learner.weightings import leave_one_out, none
from innerloop_learner.weightings.weighting import Weighting, weightings

__all__ = ["Weighting", "leave_one_out", "none", "weightings"]
