"""Settings of a model's preprocessing, and the colours of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagexplain.vision.preprocess_fields import CHANNELS, PreprocessFields, Size


@dataclass(frozen=True, repr=False)
class Preprocess(PreprocessFields):
    """Preprocessing of a model's photos, and of the colours that its inputs stand for; fields as in the base class."""

    @property
    def channel_count(self) -> int:
        """Number of channels of the input."""
        return CHANNELS[self.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the input."""
        return (self.channel_count, *self.size)

    def at_size(self, size: Size) -> Preprocess:
        """Preprocessing of the same proportions for inputs of another height and width."""
        resize = self.resize
        if isinstance(resize, tuple):
            resize = _scaled(resize[0], size[0] / self.size[0]), _scaled(resize[1], size[1] / self.size[1])
        elif resize is not None:
            resize = _scaled(resize, min(size) / min(self.size))
        longer = None if self.longer is None else _scaled(self.longer, max(size) / max(self.size))
        return replace(self, size=size, resize=resize, longer=longer)

    def normalize(self, values: Tensor) -> Tensor:
        """Normalise values (C, H, W) in [0, scale] in place, by ``mean`` and ``std``."""
        mean, std = self._statistics()
        return values.sub_(mean).div_(std)

    def of_values(self, values: Tensor) -> Preprocess:
        """Preprocessing with the statistics of a photo's values (C, H, W), where photos are normalised by their own.

        With them a black photo is what the same change of contrast and brightness makes of black, not what the model
        would make of a photo that is black by itself: that one has no contrast, and becomes 0.
        """
        if self.standardize is False:
            return self
        over = (1, 2) if self.standardize == "channel" else (0, 1, 2)
        exact = values.double()
        std, mean = torch.std_mean(exact, over, correction=0, keepdim=True)
        std = std.clamp_min((exact.numel() / mean.numel()) ** -0.5)
        means, deviations = (tuple(each.flatten().expand(self.channel_count).tolist()) for each in (mean, std))
        return replace(self, mean=means, std=deviations, standardize=False)

    def grey(self, value: float) -> Tensor:
        """Model input, (C, H, W) float32, of an opaque photo that is ``value`` everywhere: 0 is black, 1 white.

        Raises:
            ValueError: photos are normalised by their own statistics, and none is given: see :meth:`of_values`.
        """
        mean, std = self._statistics()
        if self.channels != "rgba":
            return ((value * self.scale - mean) / std).expand(*self.shape)
        colour = torch.tensor([value, value, value, 1.0])[:, None, None] * self.scale
        return ((colour - mean) / std).expand(*self.shape)

    def rgb(self, image: Tensor) -> Tensor:
        """Pixels of a model input as the eye sees them, (3, H, W) float32 in [0, 1]; alpha lies over white."""
        mean, std = self._statistics()
        values = (image * std + mean).div(self.scale).clamp(0, 1)
        match self.channels:
            case "bgr":
                return values.flip(0)
            case "grey":
                return values.expand(3, *values.shape[1:])
            case "rgba":
                return values[:3] * values[3:] + (1 - values[3:])
        return values

    def picture(self, image: Tensor) -> Tensor:
        """Picture of a model input as the eye sees it, (H, W, 3) uint8."""
        return self.rgb(image).mul(255).round().byte().permute(1, 2, 0)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (C, 1, 1) each."""
        if self.standardize is not False:
            raise ValueError("standardize: the mean and std are those of a photo's own values, and none is given")
        return torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]


def _scaled(side: int, ratio: float) -> int:
    return max(1, round(side * ratio))
