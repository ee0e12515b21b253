"""How much a query looks like the support set, for learners whose logits say little of that.

The logits of a linear head on features tell classes from each other; how far away all of them are is lost in them.
"""

import torch.nn.functional as F
from torch import Tensor

from innerloop_learner.heads import mask_unused_ways
from innerloop_learner.tasks import Support

CENTRES = "centres"
"""Name of the centres of the classes in a task state, [T, W, F]."""


def class_centres(features: Tensor, support: Support, learned: Tensor | None = None) -> Tensor:
    """The mean direction of the features of each class, [T, W, F] of length 1; zero where a class has no examples.

        c_k ~ sum of w_i f_i / |f_i| over examples i of class k

    Args:
        features: of the support examples [T, S, F].
        support: the examples.
        learned: weights w of the examples [T, S]; None if all count the same.
    """
    directions = F.normalize(features, dim=-1)
    if learned is not None:
        directions = directions * learned.detach().to(features.dtype).unsqueeze(-1)
    return F.normalize(support.members(features.dtype).transpose(1, 2) @ directions, dim=-1)


def with_familiarity(logits: Tensor, features: Tensor, centres: Tensor, ways: Tensor) -> Tensor:
    """Logits [T, Q, W] of the same probabilities, the largest of which says how much the query looks like some class.

        l_k - max_j l_j + max_j cos(f(x), c_j)

    A softmax leaves open what is added to all logits of a query, and so how probable the query is (Grathwohl et al.,
    Your Classifier is Secretly an Energy Based Model and You Should Treat it Like One, ICLR 2020, section 3). No
    gradient goes through what is added, as no probability depends on it.

    Args:
        logits: -inf past a task's classes.
        features: of the queries [T, Q, F].
        centres: of the classes, see `class_centres`.
        ways: classes of each task [T].

    >>> import torch
    >>> logits, centres = torch.tensor([[[3.0, 7.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> with_familiarity(logits, torch.tensor([[[-5.0, 0.0]]]), centres, torch.tensor([2])).tolist()
    [[[-4.0, 0.0]]]
    """
    cosines = F.normalize(features.detach(), dim=-1) @ centres.transpose(1, 2)
    nearest = mask_unused_ways(cosines, ways, -1.0).amax(-1, keepdim=True)
    return logits - logits.detach().amax(-1, keepdim=True) + nearest
