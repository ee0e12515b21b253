"""The random numbers that augmentations are made of: of a generator, or of the keys of images."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from innerloop_learner.draws import uniform_draws


class RandomNumbers(ABC):
    """Random numbers for N images, tensors [N, *shape]. Each method names what the numbers are for."""

    @abstractmethod
    def unit(self, name: str, *shape: int) -> Tensor:
        """Uniform between 0 and 1."""

    @abstractmethod
    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal."""

    def signed(self, name: str, *shape: int) -> Tensor:
        """Uniform between -1 and 1."""
        return 2 * self.unit(name, *shape) - 1


class GeneratedNumbers(RandomNumbers):
    """Numbers of a generator, in the order in which they are asked for; names change nothing.

    Args:
        images: number of images N.
        generator: generator on the device of the images.
    """

    def __init__(self, images: int, generator: torch.Generator) -> None:
        self._images = images
        self._generator = generator

    def unit(self, name: str, *shape: int) -> Tensor:
        """See RandomNumbers.unit."""
        del name
        return torch.rand((self._images, *shape), generator=self._generator, device=self._generator.device)

    def normal(self, name: str, *shape: int) -> Tensor:
        """See RandomNumbers.normal."""
        del name
        return torch.randn((self._images, *shape), generator=self._generator, device=self._generator.device)


class KeyedNumbers(RandomNumbers):
    """Numbers that the keys of images choose: the same for the same key, wherever and with whatever else it is drawn.

    Args:
        keys: keys of the images [N] int64, see `draws.keys_of_sample`.
        owner: whose numbers they are, for example an augmentation; others get other ones.
        dtype: floating-point type of the numbers.
    """

    def __init__(self, keys: Tensor, owner: str, dtype: torch.dtype) -> None:
        self._keys = keys
        self._owner = owner
        self._dtype = dtype

    def unit(self, name: str, *shape: int) -> Tensor:
        """See RandomNumbers.unit."""
        drawn = uniform_draws(self._keys, f"{self._owner}.{name}", math.prod(shape), self._dtype)
        return drawn.view(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """See RandomNumbers.normal; by the method of Box and Muller 1958, whose functions ONNX has."""
        radius, angle = self.unit(name, 2, *shape).unbind(1)
        return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()
