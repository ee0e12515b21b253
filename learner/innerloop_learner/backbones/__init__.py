"""Feature extractors, registered by name."""

from innerloop_learner.backbones import adapter, cell, conv4, mlp, resnet12, resnet18, scaled, vit
from innerloop_learner.backbones.backbone import Backbone, backbones, build_backbone

__all__ = [
    "Backbone",
    "adapter",
    "backbones",
    "build_backbone",
    "cell",
    "conv4",
    "mlp",
    "resnet12",
    "resnet18",
    "scaled",
    "vit",
]
