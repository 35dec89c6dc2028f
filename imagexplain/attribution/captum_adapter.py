"""The path methods behind Captum's ``GradientAttribution`` interface, for those who already call Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import GradientAttribution
from captum.log import log_usage
from torch import Tensor

from imagexplain.attribution.captum_arguments import (
    Baselines,
    Inputs,
    Target,
    TensorOrTuple,
    described,
    read_arguments,
    read_feature_mask,
    read_inputs,
    read_target,
    selected,
)
from imagexplain.attribution.groups.directional import directional_gradients
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate, points_on
from imagexplain.attribution.paths.quadrature import RULES, Quadrature, quadrature
from imagexplain.errors import ArgumentError

CAPTUM_RULES = {
    "gausslegendre": "gauss_legendre",
    "riemann_middle": "midpoint",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_trapezoid": "trapezoid",
}
"""Captum's names of the rules. The trapezoid is the corrected one, whose weights sum to 1."""


class IntegratedGradients(GradientAttribution):
    """Integrated gradients, called as Captum's own class is, on one or several inputs of any number of axes.

    Unlike Captum's, one pass keeps the parameters' gradients untouched, and weights and sums are in float32 or better.
    Attributions are float32 or better as well, and detached.

    Args:
        forward_func: Function from the inputs, and further arguments behind them, to an output with a row for each of
            the inputs' rows, each row independent of the others.
        multiply_by_inputs: Factor inputs − baselines on the mean gradient; False returns the mean gradient itself.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain.attribution.captum_adapter import IntegratedGradients
        >>> explainer = IntegratedGradients(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
        >>> maps, delta = explainer.attribute(rand(2, 3, 8, 8), target=[1, 4], return_convergence_delta=True)
        >>> maps.shape, delta.abs().max().item() < 1e-5
        (torch.Size([2, 3, 8, 8]), True)
    """

    def __init__(self, forward_func: Callable[..., Tensor], multiply_by_inputs: bool = True) -> None:
        super().__init__(forward_func)
        self._multiply_by_inputs = multiply_by_inputs

    # Captum's decorator has no effect but __wrapped__, which Captum's NoiseTunnel calls.
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: object = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        """Attribute by integrated gradients, with Captum's sign of the convergence delta.

        Args:
            inputs: Tensor (N, ...), or a tuple of tensors with N rows each. Whole numbers become floating-point.
            baselines: Number or tensor that broadcasts to the inputs, or a tuple with one for each; 0 by default.
            target: Index of the score to explain, or a list or tensor with one for each row; tuples of indices where a
                row's output has several axes. None where the output has one score a row.
            additional_forward_args: Argument of the forward function behind the inputs, or a tuple of them. Tensors
                have a row for each of the inputs' or one for all; the rest is the same for every row.
            n_steps: Number of path points of each row, at least 1.
            method: Name of the quadrature, a key of :data:`CAPTUM_RULES` or of
                :data:`~imagexplain.attribution.paths.quadrature.RULES`.
            internal_batch_size: Largest number of path points evaluated at once; by default all, as in Captum.
            return_convergence_delta: Pair (attributions, delta) as the result, with delta (N,) = Σ attributions − (f(x)
                − f(b)), the error of the quadrature unless ``multiply_by_inputs`` is False.

        Returns:
            Attributions shaped like the inputs, a tuple where these are.

        Raises:
            ArgumentError: arguments that do not fit, by name.
        """
        integrals = self._integrate(
            inputs, baselines, target, additional_forward_args, n_steps, method, internal_batch_size
        )
        maps = [own.attribution if self._multiply_by_inputs else own.gradient for own in integrals]
        attributions = read_inputs(inputs).as_given(torch.stack(maps))
        return (attributions, _delta(integrals, maps)) if return_convergence_delta else attributions

    def attribute_future(self) -> None:
        """Raise NotImplementedError, as Captum's class does."""
        raise NotImplementedError("attribute_future is not implemented for integrated gradients")

    def has_convergence_delta(self) -> bool:
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        return self._multiply_by_inputs

    def compute_convergence_delta(
        self,
        attributions: TensorOrTuple,
        start_point: Baselines,
        end_point: TensorOrTuple,
        target: Target = None,
        additional_forward_args: object = None,
    ) -> Tensor:
        """Convergence delta (N,): Σ attributions − (f(end point) − f(start point)) of each row.

        Unlike Captum's, it does not add up all classes where no target is named.

        Args:
            attributions: Attributions of the inputs, a tuple where these are.
            start_point, end_point: Baselines and inputs; these, the target and the further arguments are as in
                :meth:`attribute`.

        Raises:
            ArgumentError: arguments that do not fit, by name.
        """
        read = read_inputs(end_point)
        each = attributions if isinstance(attributions, tuple) else (attributions,)
        end = read.values
        count = len(end)
        if any(len(own) != count for own in each):
            raise ArgumentError(
                "attributions", f"wanted {count} rows like the end point, got {described(attributions)}"
            )
        before, after = _end_scores(
            self._scores(read, target, additional_forward_args), read.baselines(start_point), end
        )
        total = torch.stack([own.detach().double().reshape(count, -1).sum(1) for own in each]).sum(0)
        return (total - (after - before)).to(end.dtype)

    def _integrate(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines,
        target: Target,
        additional_forward_args: object,
        n_steps: int,
        method: str,
        internal_batch_size: int | None,
    ) -> list[PathIntegral]:
        """The path integral of each row, over its :attr:`~imagexplain.attribution.captum_arguments.Inputs.values`."""
        read, rule = read_inputs(inputs), _quadrature(method, n_steps)
        end = read.values
        if internal_batch_size is not None and not (isinstance(internal_batch_size, int) and internal_batch_size > 0):
            raise ArgumentError("internal_batch_size", f"wanted a whole number from 1, got {internal_batch_size!r}")
        rows = torch.arange(len(end), device=end.device)
        return integrate(
            self._scores(read, target, additional_forward_args),
            end,
            read.baselines(baselines),
            torch.zeros_like(rows),  # of the one score that is selected
            [rule] * len(end),
            chunk=internal_batch_size or points_on(rule) * len(end),
            arguments=[rows],
        )

    def _scores(self, read: Inputs, target: Target, additional: object) -> Callable[[Tensor, Tensor], Tensor]:
        """The score that is explained, (n, 1), of points (n, ...) on the paths of some rows (n,)."""
        count = len(read.parts[0])
        places, further = read_target(target, count).to(read.parts[0].device), read_arguments(additional, count)

        def scores(points: Tensor, rows: Tensor) -> Tensor:
            return selected(self.forward_func(*read.split(points), *further(rows)), places[rows])

        return scores


class IntegratedDirectionalGradients(IntegratedGradients):
    """Integrated directional gradients, spread over the pixels of each group (Sikdar et al. 2021).

    Groups are of the pixels of one input (N, C, H, W); several inputs and other shapes are refused. A directional
    gradient is along the inputs' difference from the baselines, be it large or small, so that there is nothing to leave
    out, and ``multiply_by_inputs=False`` is refused as well.

    Example:
        >>> from torch import arange, nn, rand
        >>> from imagexplain.attribution.captum_adapter import IntegratedDirectionalGradients
        >>> explainer = IntegratedDirectionalGradients(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
        >>> halves = (arange(8) // 4).expand(8, 8)  # the left and the right half
        >>> maps = explainer.attribute(rand(1, 3, 8, 8), target=2, feature_mask=halves)
        >>> maps.shape, len(maps.unique())
        (torch.Size([1, 1, 8, 8]), 2)
    """

    def __init__(self, forward_func: Callable[..., Tensor], multiply_by_inputs: bool = True) -> None:
        if not multiply_by_inputs:
            raise ArgumentError(
                "multiply_by_inputs", "wanted True, as directional gradients are along inputs − baselines, got False"
            )
        super().__init__(forward_func)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: TensorOrTuple,
        baselines: Baselines = None,
        target: Target = None,
        additional_forward_args: object = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        feature_mask: Tensor | tuple[Tensor] | None = None,
    ) -> TensorOrTuple | tuple[TensorOrTuple, Tensor]:
        """Attribute as :meth:`IntegratedGradients.attribute`; each pixel carries the directional gradient of its group.

        Args:
            inputs: Tensor (N, C, H, W), or a tuple of one such tensor.
            feature_mask: Labels of groups, from 0, whole numbers of any dtype, the channels of a pixel belonging
                together: (H, W) for all images, (N, H, W), or with an axis for the channels (1 or N, 1 or C, H, W), as
                NoiseTunnel wants it; by default every pixel is a group.

        Returns:
            Directional gradients (N, 1, H, W), and with ``return_convergence_delta`` the delta of the underlying
            integrated gradients.

        Raises:
            ArgumentError: arguments that do not fit, by name.
        """
        read = _image(inputs)
        masks = read_feature_mask(feature_mask, read.values)
        integrals = self._integrate(
            inputs, baselines, target, additional_forward_args, n_steps, method, internal_batch_size
        )
        directional = [
            directional_gradients(own.attribution, own.difference, mask)[mask].unsqueeze(0)
            for own, mask in zip(integrals, masks, strict=True)
        ]
        attributions = read.as_given(torch.stack(directional))
        if not return_convergence_delta:
            return attributions
        return attributions, _delta(integrals, [own.attribution for own in integrals])

    def compute_convergence_delta(
        self,
        attributions: TensorOrTuple,
        start_point: Baselines,
        end_point: TensorOrTuple,
        target: Target = None,
        additional_forward_args: object = None,
        feature_mask: Tensor | tuple[Tensor] | None = None,
    ) -> Tensor:
        """Convergence delta (N,): Σ ‖Δ_S‖ · IDG(S) − (f(end point) − f(start point)) of each row, over its groups S.

        Args:
            attributions: Directional gradients, (N, 1, H, W).
            start_point, end_point, target, additional_forward_args: Arguments as in
                :meth:`IntegratedGradients.attribute`.
            feature_mask: Groups of the attributions, as :meth:`attribute` took them.

        Raises:
            ArgumentError: arguments that do not fit, by name.
        """
        read = _image(end_point)
        each = attributions if isinstance(attributions, tuple) else (attributions,)
        count, _, height, width = read.values.shape
        if len(each) != 1 or each[0].shape != (count, 1, height, width):
            wanted = (count, 1, height, width)
            raise ArgumentError("attributions", f"wanted directional gradients {wanted}, got {described(attributions)}")
        masks = read_feature_mask(feature_mask, read.values)
        squares = (read.values - read.baselines(start_point)).double().square().sum(1)  # (N, H, W)
        shares = [
            own.double()
            * (torch.bincount(mask.flatten(), square.flatten()).sqrt() / torch.bincount(mask.flatten()))[mask]
            for own, mask, square in zip(each[0][:, 0], masks, squares, strict=True)
        ]
        return super().compute_convergence_delta(
            torch.stack(shares), start_point, end_point, target, additional_forward_args
        )


def _image(inputs: TensorOrTuple) -> Inputs:
    read = read_inputs(inputs)
    if not read.is_image:
        raise ArgumentError(
            "inputs", f"wanted one tensor (N, C, H, W), as groups are of its pixels, got {described(inputs)}"
        )
    return read


def _quadrature(method: str, steps: int | np.integer[Any]) -> Quadrature:
    rule = CAPTUM_RULES.get(method, method)
    if rule not in RULES:
        raise ArgumentError("method", f"wanted one of {', '.join([*CAPTUM_RULES, *RULES])}, got {method!r}")
    least = 2 if rule == "trapezoid" else 1
    if not isinstance(steps, int | np.integer) or steps < least:
        raise ArgumentError("n_steps", f"wanted a whole number from {least}, got {steps!r}")
    return quadrature(rule, int(steps))


@isolated
@torch.no_grad()
def _end_scores(forward: Callable[[Tensor, Tensor], Tensor], *ends: Tensor) -> list[Tensor]:
    """The score of each row at both ends of its path, (N,) float64."""
    rows = torch.arange(len(ends[0]), device=ends[0].device)
    return [forward(points, rows)[:, 0].double() for points in ends]


def _delta(integrals: list[PathIntegral], maps: list[Tensor]) -> Tensor:
    """Convergence delta (N,) of each row: Σ map − (f(x) − f(b))."""
    totals = zip(torch.stack([own.sum(dtype=torch.float64) for own in maps]).tolist(), integrals, strict=True)
    return maps[0].new_tensor([total - (own.score - own.baseline_score) for total, own in totals])
