"""The network as anyone writes it with torch.nn; it knows nothing of Innerloop."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workload import BLOCKS, EPSILON, WAYS, WIDTH, Weights, Workload


class SupportNorm(nn.Module):
    """Batch normalisation with the statistics of the first `support` images of the batch.

    Args:
        channels: channels.
        support: number of images.
        native: whether to use PyTorch's own operation where it can be used. Under vmap its second derivatives are wrong
            by about 1% (PyTorch 2.13), in float64 too.
    """

    def __init__(self, channels: int, support: int, native: bool) -> None:
        super().__init__()
        self.native = native
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.support = support

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [N, C, H, W]."""
        if self.native and len(x) == self.support:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=EPSILON)
        variance, mean = torch.var_mean(x[: self.support], dim=(0, 2, 3), correction=0)
        scale = self.weight * (variance + EPSILON).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class Conv4(nn.Module):
    """Conv4-64 with max-pooling and a linear head.

    Args:
        workload: shapes.
        channels_last: whether to store images channels last, in which a CPU pools and convolves faster.
        native_norm: see SupportNorm.
    """

    def __init__(self, workload: Workload, channels_last: bool = False, native_norm: bool = True) -> None:
        super().__init__()
        channels = (workload.image[0], *[WIDTH] * BLOCKS)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.support = workload.support
        self.convs = nn.ModuleList(nn.Conv2d(channels[b], channels[b + 1], 3, padding=1) for b in range(BLOCKS))
        self.norms = nn.ModuleList(SupportNorm(WIDTH, workload.support, native_norm) for _ in range(BLOCKS))
        self.head = nn.Linear(workload.features, WAYS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x [N, C, H, W]: of the support set, or of queries that come behind the support set."""
        queries = len(x) > self.support
        x = x.contiguous(memory_format=self.format)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return self.head((x[self.support :] if queries else x).flatten(1))


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Set the weights of a network."""
    network.load_state_dict({module_name(name): torch.from_numpy(value) for name, value in weights.items()})


def module_name(name: str) -> str:
    """The name that a weight has in the network: "conv0.weight" is "convs.0.weight"."""
    layer, _, parameter = name.partition(".")
    return name if layer == "head" else f"{layer[:-1]}s.{layer[-1]}.{parameter}"
