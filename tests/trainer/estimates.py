"""Compares estimates of the same batch."""

import torch

from innerloop_trainer.outer_loop import Estimate


def assert_same(found: Estimate, expected: Estimate) -> None:
    for of_parts, whole in (
        (found.gradients, expected.gradients),
        (found.buffers, expected.buffers),
        (found.carried, expected.carried),
        ({"loss": found.loss, "outputs": found.outputs}, {"loss": expected.loss, "outputs": expected.outputs}),
    ):
        assert of_parts.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(of_parts[name], value, rtol=1e-7, atol=1e-10, equal_nan=True, msg=name)
