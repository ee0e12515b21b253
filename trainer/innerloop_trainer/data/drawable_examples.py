"""Examples that are drawn by their numbers, wherever they lie."""

import torch
from torch import Tensor

from innerloop_learner.encoders import pack_texts
from innerloop_trainer.data.example_set import Examples
from innerloop_trainer.data.row_files import MappedRows


class DrawableExamples:
    """Examples on the device that episodes are drawn on, or on disk, from where those that are drawn are fetched.

    Texts stay as strings until an encoder reads them; drawn, they are packed.

    Args:
        examples: examples [N, ...].
        device: device to give them on.
    """

    def __init__(self, examples: Examples, device: torch.device) -> None:
        self._examples, self._device = examples, device
        away = isinstance(examples, MappedRows) or examples.dtype == object
        self._resident = None if away else torch.from_numpy(examples).to(device)

    @property
    def on_device(self) -> bool:
        """Whether they lie on the device, so that the host need not see which are drawn."""
        return self._resident is not None

    def take(self, rows: Tensor) -> Tensor:
        """Examples [T, N, *input] by their numbers [T, N]. Texts are packed to the length of the longest of them."""
        if self._resident is not None:
            return self._resident[rows]
        drawn = self._examples[rows.flatten().cpu().numpy()]
        if drawn.dtype == object:
            drawn = pack_texts(drawn.tolist())
        return torch.from_numpy(drawn).to(self._device).reshape(*rows.shape, *drawn.shape[1:])
