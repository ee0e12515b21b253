"""Figures of training between two validations."""

import torch
from torch import Tensor


class RecentFigures:
    """Figures since the last validation. Sums stay on the device, so that outer steps need not wait for the device.

    Attributes:
        seconds: time spent training, in seconds.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._steps = 0
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)

    @property
    def steps(self) -> int:
        """Outer steps since the last validation."""
        return self._steps

    def add(self, loss: Tensor, value: Tensor) -> None:
        """Add an outer step's loss, and its accuracy or mean squared error."""
        self._sums += torch.stack([loss, value])
        self._steps += 1

    def means(self) -> tuple[float, float]:
        """Mean loss, and mean accuracy or squared error; waits for the device."""
        loss, value = (self._sums / max(self._steps, 1)).tolist()
        return loss, value

    @property
    def steps_per_second(self) -> float:
        """Outer steps per second."""
        return self._steps / self.seconds if self.seconds else 0.0

    def state(self) -> Tensor:
        """All figures as one tensor [4] float64; waits for the device."""
        counted = torch.tensor([self._steps, self.seconds], dtype=torch.float64)
        return torch.cat([counted, self._sums.cpu()])

    def restore(self, state: Tensor) -> None:
        """Continue from what `state` returned."""
        steps, self.seconds, *_ = state.tolist()
        self._steps = int(steps)
        self._sums = state[2:].to(self._sums.device)
