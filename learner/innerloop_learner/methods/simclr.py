"""Pre-train without labels, then answer with what is nearest in the space of features."""

from dataclasses import replace
from typing import ClassVar

from innerloop_learner.learner import MethodInfo, methods
from innerloop_learner.methods.nearest import NearestCentroid


@methods.register("simclr")
class SimCLR(NearestCentroid):
    """Features that tell images apart, whatever their labels (SimCLR, Chen et al. 2020).

    It answers with the nearest class mean.

    Training pulls augmentations of one image together and pushes those of others away (objective `contrastive`), so it
    needs no labels. Like those of `baseline`, its features are a start for other methods.
    """

    info: ClassVar[MethodInfo] = replace(
        NearestCentroid.info,
        name="simclr",
        family="self-supervised",
        paper="Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual "
        "Representations. ICML 2020",
        objective="contrastive",
    )
