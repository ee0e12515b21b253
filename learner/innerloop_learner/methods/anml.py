"""A neuromodulated meta-learning algorithm."""

from dataclasses import replace

from innerloop_learner.backbones.backbone import build_backbone
from innerloop_learner.backbones.modulated import Modulated
from innerloop_learner.learner import methods
from innerloop_learner.methods.oml import OML
from innerloop_learner.spec import LearnerSpec


@methods.register("anml")
class ANML(OML):
    """OML whose features a second network gates (Beaulieu et al. 2020, ANML, section 3).

        f(x) = sigmoid(G g(x) + c) * h(x)

    The neuromodulatory network g is another backbone of the same kind. A gate that is closed for an input keeps its
    feature out of the answer, and keeps the example from changing what the head makes of that feature. As in the
    paper's evaluation, the head alone learns online; the paper's meta-training also moves h in its inner loop.
    """

    info = replace(
        OML.info,
        name="anml",
        paper="Beaulieu, Frati, Miconi, Lehman, Stanley, Clune, Cheney: Learning to Continually Learn. ECAI 2020",
    )

    def __init__(self, spec: LearnerSpec) -> None:
        super().__init__(spec)
        modulator = build_backbone(spec.backbone, spec.input.shape, spec.backbone_settings)
        self.backbone = Modulated(self.backbone, modulator)
