"""Meta-dropout."""

import torch
from torch import Tensor

from innerloop_learner.noises.noise import NOISE, Affine, Noise, noises
from innerloop_learner.tasks import Params


@noises.register("meta_dropout")
class MetaDropout(Noise):
    """Noise whose strength is learned and depends on the input (Lee, Nam, Yang and Hwang 2020, section 3).

    Layer l with inputs h has a second affine map of the same shape, m_l, with parameters p that are meta-learned by the
    query loss, while the inner loop leaves them as they are:

        y_l = (W_l h + b_l) * Softplus(m_l(h; p) + e),   e ~ N(0, 1) for support examples in the inner loop
        y_l = (W_l h + b_l) * Softplus(m_l(h; p))        for queries, and for the statistics that normalise them
        w_{k+1} = w_k - a * grad_w E_e L_S(w_k; e, p),   (w*, p*) = argmin  E_task L_Q(w_K; p)

    The paper's noise on logits is left out. p is zero at first, which is the noise of `fixed`.
    """

    def init(self, layers: Params, generator: torch.Generator) -> Params:
        """See Noise.init; p, and the table."""
        own = {NOISE + name: torch.zeros_like(value) for name, value in layers.items()}
        return {**own, **super().init(layers, generator)}

    def mean(self, params: Params, layer: str, affine: Affine) -> Tensor:
        """See Noise.mean."""
        return affine(params[f"{NOISE}{layer}.weight"], params[f"{NOISE}{layer}.bias"])
