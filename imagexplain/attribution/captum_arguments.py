"""Captum's forms of arguments: inputs, baselines, targets, further arguments and feature masks, read and checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagexplain.attribution.network.forward import described_output
from imagexplain.errors import ArgumentError

TensorOrTuple = Tensor | tuple[Tensor, ...]
Baselines = Tensor | float | tuple[Tensor | float, ...] | None
Target = int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | Tensor | None


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of a forward function, laid side by side in one tensor through which a path can be taken.

    Attributes:
        parts: Inputs (N, ...), floating-point and detached; those given as whole numbers have the default dtype.
        is_tuple: Form of the answer: a tuple where the inputs came as one.
    """

    parts: tuple[Tensor, ...]
    is_tuple: bool

    @property
    def values(self) -> Tensor:
        """Inputs in one tensor: (N, C, H, W) where that is the only input, else all features (N, 1, 1, F).

        Its precision is float32 or better.
        """
        return self._laid(self.parts)

    @property
    def is_image(self) -> bool:
        """Test for a single input (N, C, H, W)."""
        return len(self.parts) == 1 and self.parts[0].ndim == 4

    def baselines(self, given: Baselines) -> Tensor:
        """Baselines as Captum takes them, laid out like the inputs' :attr:`values`.

        Raises:
            ValueError: ``baselines: …`` for other types, too few, or tensors that do not broadcast to their inputs.
        """
        each: tuple[object, ...] = given if isinstance(given, tuple) else (given,)
        if given is None:
            each = (0,) * len(self.parts)
        if len(each) != len(self.parts):
            raise ArgumentError("baselines", f"wanted {len(self.parts)}, one for each input, got {len(each)}")
        return self._laid([_baseline(own, part) for own, part in zip(each, self.parts, strict=True)])

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values laid out like :attr:`values`, of any number of rows, in the inputs' shapes and dtypes."""
        return tuple(own.to(part.dtype) for own, part in zip(self._shaped(values), self.parts, strict=True))

    def as_given(self, values: Tensor) -> TensorOrTuple:
        """Attributions laid out like :attr:`values`, in the inputs' shapes and precision, float32 at least."""
        dtypes = [torch.promote_types(part.dtype, torch.float32) for part in self.parts]
        found = tuple(own.to(dtype) for own, dtype in zip(self._shaped(values), dtypes, strict=True))
        return found if self.is_tuple else found[0]

    def _shaped(self, values: Tensor) -> tuple[Tensor, ...]:
        if self.is_image:
            return (values,)
        shapes = [part.shape[1:] for part in self.parts]
        pieces = values.flatten(1).split([math.prod(shape) for shape in shapes], 1)  # (n, F) → (n, F of each input)
        return tuple(own.reshape(len(values), *shape) for own, shape in zip(pieces, shapes, strict=True))

    def _laid(self, parts: Sequence[Tensor]) -> Tensor:
        dtype = reduce(torch.promote_types, (part.dtype for part in self.parts), torch.float32)
        if self.is_image:
            return parts[0].to(dtype)
        rows = [part.to(dtype).reshape(len(part), math.prod(part.shape[1:])) for part in parts]
        return torch.cat(rows, 1)[:, None, None]


def read_inputs(given: object) -> Inputs:
    """A tensor or a tuple of tensors with as many rows.

    Raises:
        ValueError: ``inputs: …`` for anything else.
    """
    parts: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)
    if not parts or not all(isinstance(part, Tensor) and part.ndim and not part.is_complex() for part in parts):
        raise ArgumentError(
            "inputs", f"wanted a tensor (N, ...) of real numbers or a tuple of these, got {described(given)}"
        )
    if len({len(part) for part in parts}) > 1 or not len(parts[0]):
        raise ArgumentError("inputs", f"wanted at least one row, and as many of each tensor, got {described(given)}")
    floats = (part if part.is_floating_point() else part.to(torch.get_default_dtype()) for part in parts)
    return Inputs(tuple(part.detach() for part in floats), isinstance(given, tuple))


def read_target(given: Target | np.ndarray[Any, Any], count: int) -> Tensor:
    """Place of each row's score behind the first axis of the output, (N, D) int64; D = 0 where none is named.

    Args:
        given: Index or tuple of indices for all rows, or a list or a tensor with one for each.
        count: Number N of rows.

    Raises:
        ValueError: ``target: …`` for other types, or as many as there are not rows.
    """
    if given is None:
        return torch.zeros(count, 0, dtype=torch.int64)
    each: list[Any]
    if isinstance(given, Tensor | np.ndarray):
        if given.ndim > 1 and math.prod(given.shape) != 1:
            raise ArgumentError("target", f"wanted an index or {count} of them, got {described(given)}")
        each = given.reshape(-1).tolist()
        if len(each) == 1:
            each *= count  # one index is for all rows, be it (), (1,) or (1, 1)
    else:
        each = given if isinstance(given, list) else [given] * count
    if len(each) != count:
        raise ArgumentError("target", f"wanted {count}, one for each row, got {len(each)}")
    places = [place if isinstance(place, tuple) else (place,) for place in each]
    for index in (index for place in places for index in place):
        if not _is_index(index):
            raise ArgumentError("target", f"wanted whole numbers or tuples of these, got {index!r}")
    if len(set(map(len, places))) > 1:
        raise ArgumentError("target", f"wanted tuples of equally many indices, got {sorted(set(map(len, places)))}")
    return torch.tensor([[int(index) for index in place] for place in places], dtype=torch.int64)


def selected(output: object, places: Tensor) -> Tensor:
    """The scores at the given places of the output, (n, 1).

    Args:
        output: Output (n, ...) of the forward function.
        places: Places (n, D) from :func:`read_target`.

    Raises:
        ValueError: ``forward_func: …`` where the output does not have a row for each input, ``target: …`` where a place
            is not that of one score.
    """
    count, depth = places.shape
    wanted_rows = f"wanted a tensor with a row for each of {count} inputs"
    if not isinstance(output, Tensor):
        raise ArgumentError("forward_func", f"{wanted_rows}, got {described_output(output)}")
    if not output.ndim or len(output) != count:
        raise ArgumentError("forward_func", f"{wanted_rows}, got {described(output)}")
    if output.is_meta and not places.is_meta:
        raise ArgumentError("forward_func", f"{wanted_rows}, got them on the meta device, which holds no numbers")
    shape = tuple(output.shape[1:]) or (1,)
    if depth > len(shape) or math.prod(shape[depth:]) != 1:
        wanted = "the class to explain" if len(shape) == 1 else f"a tuple of {len(shape)} indices"
        got = f"{depth} indices" if depth > 1 else "one index" if depth else "none"
        raise ArgumentError("target", f"wanted {wanted}, as the output has the scores {shape} of each row, got {got}")
    place = output.new_zeros(count, dtype=torch.int64)
    for index, size in zip(places.to(output.device).T, shape, strict=False):
        if index.min() < 0 or index.max() >= size:
            raise ArgumentError("target", f"wanted 0..{size - 1}, got {index.unique().tolist()}")
        place = place * size + index
    return output.reshape(count, -1).gather(1, place.unsqueeze(1))


def read_arguments(given: object, count: int) -> Callable[[Tensor], tuple[Any, ...]]:
    """Read what a forward function takes behind its inputs, as a function of the rows (n,) of the inputs.

    A tensor has its own row for each of the inputs', or one for all; a tensor without axes and everything else is the
    same for every row.

    Args:
        given: Further arguments: None, one, or a tuple of them.
        count: Number N of the inputs' rows.

    Raises:
        ValueError: ``additional_forward_args: …`` for a tensor of another number of rows.
    """
    values = given if isinstance(given, tuple) else () if given is None else (given,)
    for value in values:
        if isinstance(value, Tensor) and value.ndim and len(value) not in (1, count):
            raise ArgumentError(
                "additional_forward_args",
                f"wanted a row for each of {count} inputs in each tensor, "
                f"got {described(value)}; functools.partial binds what is the same for all",
            )
    per_row = [isinstance(value, Tensor) and value.ndim > 0 for value in values]

    def of(rows: Tensor) -> tuple[Any, ...]:
        pairs = zip(values, per_row, strict=True)
        return tuple(
            value.expand(count, *value.shape[1:])[rows.to(value.device)] if by_row else value for value, by_row in pairs
        )

    return of


def read_feature_mask(given: object, images: Tensor) -> Tensor:
    """The group of each pixel, (N, H, W) int64 on the images' device, numbered from 0 without gaps in each image.

    Args:
        given: Labels from 0, whole numbers of any dtype, (H, W) or (1, H, W) for all images, (N, H, W) for each, or
            with an axis for the channels, (1 or N, 1 or C, H, W), along which they are equal; None for single pixels.
        images: Images (N, C, H, W).

    Raises:
        ValueError: ``feature_mask: …`` for anything else.
    """
    count, _, height, width = images.shape
    if given is None:
        return torch.arange(height * width, device=images.device).view(height, width).expand(count, -1, -1)
    if isinstance(given, tuple) and len(given) == 1:
        given = given[0]
    wanted = f"wanted (H, W), (N, H, W) or (N, 1 or C, H, W) for inputs {tuple(images.shape)}"
    if not isinstance(given, Tensor) or not 2 <= given.ndim <= 4:
        raise ArgumentError("feature_mask", f"{wanted}, got {described(given)}")
    labels = given.detach().to(images.device)
    labels = labels.unsqueeze(1) if labels.ndim == 3 else labels
    if any(own not in (1, size) for own, size in zip(labels.shape[::-1], images.shape[::-1], strict=False)):
        raise ArgumentError("feature_mask", f"{wanted}, got {described(given)}")
    if labels.is_floating_point():
        if not (labels == labels.floor()).all() or labels.isinf().any():
            raise ArgumentError("feature_mask", "wanted whole numbers, got fractions, NaN or infinity")
    elif labels.is_complex():
        raise ArgumentError("feature_mask", f"{wanted}, got {described(given)}")
    else:
        labels = labels.to(torch.int64)
    if labels.min() < 0:
        raise ArgumentError("feature_mask", f"wanted labels from 0, got {labels.min().item()}")
    labels = labels if labels.ndim == 4 else labels[None, None]
    if (labels != labels[:, :1]).any():
        raise ArgumentError("feature_mask", "wanted the same groups in all channels, as a group holds whole pixels")
    numbered = torch.stack([own.unique(return_inverse=True)[1] for own in labels[:, 0]])
    return numbered.expand(count, height, width)


def described(value: object) -> str:
    """A value's type, or the shapes and dtypes of tensors, for the message of an error."""
    if isinstance(value, tuple):
        return f"({', '.join(map(described, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Tensor | np.ndarray):
        return f"{tuple(value.shape)} {value.dtype}"
    return "None" if value is None else type(value).__name__


def _baseline(given: object, part: Tensor) -> Tensor:
    """The baseline of one input, expanded to its shape."""
    if isinstance(given, Tensor | Real) and not (isinstance(given, Tensor) and given.is_complex()):
        baseline = torch.as_tensor(given, dtype=part.dtype, device=part.device).detach()
        sizes = zip(baseline.shape[::-1], part.shape[::-1], strict=False)
        if baseline.ndim <= part.ndim and all(own in (1, size) for own, size in sizes):
            return baseline.expand_as(part)
    raise ArgumentError(
        "baselines", f"wanted a number or a tensor that broadcasts to {tuple(part.shape)}, got {described(given)}"
    )


def _is_index(value: object) -> bool:
    if isinstance(value, Tensor) and not value.ndim:
        value = value.item()
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**63) < int(value) < 2**63
