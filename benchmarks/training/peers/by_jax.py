"""Peer: JAX, an outer step as one jitted program, tasks by vmap or (`--sequential`) one after the other."""

import sys
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from side import Side, serve
from workload import BLOCKS, EPSILON, OUTER_RATE, RATE, Batch, Weights, Workload

Params = dict[str, Array]


def features(params: Params, x: Array, support: int) -> Array:
    """Features [N, F] of x [N, C, H, W], normalised by the statistics of the first `support` images."""
    for block in range(BLOCKS):
        convolved = lax.conv_general_dilated(x, params[f"conv{block}.weight"], (1, 1), "SAME")
        x = convolved + params[f"conv{block}.bias"][:, None, None]
        mean, variance = x[:support].mean((0, 2, 3)), x[:support].var((0, 2, 3))
        scale = params[f"norm{block}.weight"] * lax.rsqrt(variance + EPSILON)
        shift = params[f"norm{block}.bias"] - mean * scale
        x = jax.nn.relu(x * scale[:, None, None] + shift[:, None, None])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(len(x), -1)


def loss_of(params: Params, images: Array, labels: Array, support: int) -> Array:
    """Mean cross-entropy of the last images, as many as there are labels."""
    logits = features(params, images, support)[-len(labels) :] @ params["head.weight"].T + params["head.bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def task_loss(steps: int, params: Params, support: Array, labels: Array, query: Array, query_labels: Array) -> Array:
    """The loss of a task's queries after adapting."""

    def step(adapted: Params, _: None) -> tuple[Params, None]:
        gradients = jax.grad(loss_of)(adapted, support, labels, len(support))
        return jax.tree.map(lambda value, gradient: value - RATE * gradient, adapted, gradients), None

    adapted, _ = lax.scan(step, params, None, length=steps, unroll=True)
    return loss_of(adapted, jnp.concatenate((support, query)), query_labels, len(support))


class Jax(Side):
    """A jitted step with the gradient of the mean over tasks, which run by vmap, and optax.adam."""

    def __init__(self, workload: Workload, threads: int, processes: int) -> None:
        assert processes == 1
        del threads  # XLA takes those that the process may run on
        self._on_gpu = workload.device == "cuda"
        if self._on_gpu != (jax.default_backend() == "gpu"):
            raise RuntimeError(f"JAX computes on {jax.default_backend()}")
        task = partial(task_loss, workload.steps)
        self._adam = optax.adam(OUTER_RATE)
        self._update = jax.jit(self._updated, donate_argnums=(0, 1))
        self._gradient = self._gradient_of(task)

    def restart(self, weights: Weights) -> None:
        """See Side.restart."""
        self._params = {name: jnp.array(value) for name, value in weights.items()}
        self._state = self._adam.init(self._params)

    def step(self, batch: Batch) -> float:
        """See Side.step."""
        loss, gradients = self._gradient(self._params, batch)
        self._params, self._state = self._update(self._params, self._state, gradients)
        jax.block_until_ready(self._params)
        return float(loss)

    def gradient(self, batch: Batch) -> tuple[float, Weights]:
        """See Side.gradient."""
        with jax.default_matmul_precision("highest"):  # a GPU rounds factors to TF32 otherwise
            loss, gradients = self._gradient(self._params, batch)
        return float(loss), {name: np.asarray(value) for name, value in gradients.items()}

    def weights(self) -> Weights:
        """See Side.weights."""
        return {name: np.asarray(value) for name, value in self._params.items()}

    def device_bytes(self) -> int:
        """See Side.device_bytes."""
        return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)) if self._on_gpu else 0

    def _gradient_of(self, task: Callable[..., Array]) -> Callable[[Params, Batch], tuple[Array, Params]]:
        """The function that gives the mean loss of a batch and its gradient."""
        return jax.jit(jax.value_and_grad(lambda params, batch: jax.vmap(partial(task, params))(*batch).mean()))

    def _updated(self, params: Params, state: optax.OptState, gradients: Params) -> tuple[optax.Params, optax.OptState]:
        updates, state = self._adam.update(gradients, state)
        return optax.apply_updates(params, updates), state


class Sequential(Jax):
    """The gradient of one task is jitted, and tasks run one after the other, so that none has a part of a convolution.

    A loop over tasks inside of the program is slower: on a CPU, XLA runs a loop's convolutions on one thread.
    """

    def _gradient_of(self, task: Callable[..., Array]) -> Callable[[Params, Batch], tuple[Array, Params]]:
        """See Jax._gradient_of."""
        own = jax.jit(jax.value_and_grad(task))
        add = jax.jit(partial(jax.tree.map, jnp.add))
        mean = jax.jit(lambda total, tasks: jax.tree.map(lambda value: value / tasks, total))

        def gradient(params: Params, batch: Batch) -> tuple[Array, Params]:
            return mean(reduce(add, (own(params, *arrays) for arrays in zip(*batch, strict=True))), len(batch.support))

        return gradient


if __name__ == "__main__":
    sequential = "--sequential" in sys.argv
    if sequential:
        sys.argv.remove("--sequential")
    serve(Sequential if sequential else Jax)
