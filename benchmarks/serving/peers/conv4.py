"""Parts that all peers share: the network, how it adapts, and the bytes of a request and an answer.

Written as anyone writes it with torch.nn; it knows nothing of Innerloop. Everything that a framework can do better by
itself is left to the file of that framework.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

IMAGE = (1, 28, 28)
WAYS, WIDTH, BLOCKS = 5, 64, 4
STEPS, RATE = 5, 0.1
SCALE, MEAN, STD = 1 / 255, 0.5, 0.5

Answer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From support images [S, C, H, W], labels [S] and query images [Q, C, H, W] to probabilities [Q, W]."""


class SupportNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the first `support` images of the batch."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor, support: int) -> Tensor:
        """Normalise x [N, C, H, W]."""
        if support == len(x):
            return super().forward(x)
        variance, mean = torch.var_mean(x[:support], dim=(0, 2, 3), correction=0)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


class Conv4(nn.Module):
    """Conv4-64 with max-pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        channels = (IMAGE[0], *[WIDTH] * BLOCKS)
        self.convs = nn.ModuleList(nn.Conv2d(channels[b], channels[b + 1], 3, padding=1) for b in range(BLOCKS))
        self.norms = nn.ModuleList(SupportNorm(WIDTH) for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, WAYS)

    def forward(self, x: Tensor, support: int) -> Tensor:
        """Logits [N, W] of x [N, C, H, W], whose first `support` images are the support set."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x), support)), 2)
        return self.head(x.flatten(1))


def load(weights: Path, device: str) -> Conv4:
    """The network with the weights of a state dict."""
    network = Conv4().to(device)
    network.load_state_dict(torch.load(weights, map_location=device, weights_only=True))
    return network


def by_autograd(network: Conv4) -> Answer:
    """Adapt by a plain loop of functional_call and autograd."""

    def answer(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
        adapted = list(weights.values())
        for _ in range(STEPS):
            loss = F.cross_entropy(functional_call(network, weights, (support, len(support))), labels)
            gradients = torch.autograd.grad(loss, adapted)
            with torch.no_grad():
                torch._foreach_add_(adapted, gradients, alpha=-RATE)
        with torch.no_grad():
            logits = functional_call(network, weights, (torch.cat((support, query)), len(support)))
        return logits[len(support) :].softmax(-1)

    return answer


def by_higher(network: Conv4) -> Answer:
    """Adapt by higher, without the graph through the steps that only training needs."""
    import higher

    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)

    def answer(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        with higher.innerloop_ctx(network, optimizer, track_higher_grads=False) as (adapted, steps):
            for _ in range(STEPS):
                steps.step(F.cross_entropy(adapted(support, len(support)), labels))
            with torch.no_grad():
                logits = adapted(torch.cat((support, query)), len(support))
        return logits[len(support) :].softmax(-1)

    return answer


ADAPT = {"autograd": by_autograd, "higher": by_higher}


def by_vmap(network: Conv4) -> Answer:
    """Adapt a batch of tasks, every argument and the answer with a leading task dimension."""
    initial = {name: weight.detach() for name, weight in network.named_parameters()}

    def task(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        def loss(weights: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(functional_call(network, weights, (support, len(support))), labels)

        weights = initial
        for _ in range(STEPS):
            gradients = grad(loss)(weights)
            weights = {name: weight - RATE * gradients[name] for name, weight in weights.items()}
        logits = functional_call(network, weights, (torch.cat((support, query)), len(support)))
        return logits[len(support) :].softmax(-1)

    return torch.no_grad()(vmap(task))


def pack(support: np.ndarray, labels: np.ndarray, query: np.ndarray) -> bytes:
    """A request: the number of support images, their labels, their pixels, and the pixels of the queries, in bytes."""
    return bytes([len(labels)]) + labels.astype(np.uint8).tobytes() + support.tobytes() + query.tobytes()


def unpack(request: bytes) -> tuple[Tensor, Tensor, Tensor]:
    """Support images [S, C, H, W] uint8, labels [S] and query images [Q, C, H, W] uint8 of a request."""
    content = torch.frombuffer(bytearray(request), dtype=torch.uint8)
    size = int(content[0])
    images = content[1 + size :].view(-1, *IMAGE)
    return images[:size], content[1 : 1 + size].long(), images[size:]


def normalise(images: Tensor) -> Tensor:
    """Pixels as the network takes them."""
    return (images.float() * SCALE - MEAN) / STD


def answer_one(answer: Answer, request: bytes, device: str) -> bytes:
    """The answer to one request: probabilities, float32 [Q, W]."""
    support, labels, query = (tensor.to(device) for tensor in unpack(request))
    return answer(normalise(support), labels, normalise(query)).cpu().numpy().tobytes()


def answer_batch(answer: Answer, requests: list[bytes], device: str) -> list[bytes]:
    """The answers to requests whose tasks have equal sizes, computed together."""
    tasks = zip(*map(unpack, requests), strict=True)
    support, labels, query = (torch.stack(tensors).to(device) for tensors in tasks)
    return [task.tobytes() for task in answer(normalise(support), labels, normalise(query)).cpu().numpy()]
