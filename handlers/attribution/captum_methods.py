"""The path methods behind Captum's ``GradientAttribution`` interface, for those who already call Captum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor

from handlers.attribution.directional import directional_gradients
from handlers.attribution.path import PathIntegral, integrate, points_on
from handlers.attribution.quadrature import quadrature

CAPTUM_RULES = {
    "gausslegendre": "gauss_legendre",
    "riemann_middle": "midpoint",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_trapezoid": "trapezoid",
}
"""Captum's names of the rules. The trapezoid is the corrected one, whose weights sum to 1."""


class IntegratedGradients(GradientAttribution):
    """Integrated gradients of an image batch, called as Captum's own class is.

    Unlike Captum's, one pass keeps the parameters' gradients untouched and accumulates in float32 or better, and a
    batch is one tensor (N, C, H, W); models with several inputs are Captum's to explain.
    """

    def attribute(
        self,
        inputs: Tensor,
        baselines: Tensor | float | None = None,
        target: int | list[int] | Tensor | None = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Integrated gradients, with Captum's sign of the convergence delta.

        Args:
            inputs: (N, C, H, W).
            baselines: broadcastable to inputs; 0 by default.
            target: a class for all rows or one for each; not needed when the model has one score a row.
            additional_forward_args: passed to the forward function behind the inputs; the same for every row.
            n_steps: path points of each row.
            method: a key of :data:`CAPTUM_RULES` or of :data:`~handlers.attribution.quadrature.RULES`.
            internal_batch_size: path points evaluated at once; by default all of them, as in Captum.
            return_convergence_delta: return (attributions, delta) with delta (N,) = Σ IG − (f(x) − f(b)).

        Raises:
            ValueError: inputs that are not one (N, C, H, W) tensor, or an unknown method.
        """
        integrals = self._integrate(
            inputs, baselines, target, additional_forward_args, n_steps, method, internal_batch_size
        )
        attributions = torch.stack([integral.attribution for integral in integrals]).to(inputs.dtype)
        return (attributions, _delta(integrals, inputs)) if return_convergence_delta else attributions

    def has_convergence_delta(self) -> bool:
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def _integrate(
        self,
        inputs: Tensor,
        baselines: Tensor | float | None,
        target: int | list[int] | Tensor | None,
        additional_forward_args: Any,
        n_steps: int,
        method: str,
        internal_batch_size: int | None,
    ) -> list[PathIntegral]:
        if not isinstance(inputs, Tensor) or inputs.ndim != 4:
            raise ValueError(f"inputs: wanted one tensor (N, C, H, W), got {_described(inputs)}")
        start = torch.as_tensor(0 if baselines is None else baselines, dtype=inputs.dtype, device=inputs.device)
        classes = torch.as_tensor(0 if target is None else target, device=inputs.device)
        rule = quadrature(CAPTUM_RULES.get(method, method), n_steps)
        return integrate(
            _two_dimensional(self.forward_func, additional_forward_args),
            inputs.detach(),
            start.expand_as(inputs),
            classes.reshape(-1).expand(len(inputs)),
            [rule] * len(inputs),
            chunk=internal_batch_size or points_on(rule) * len(inputs),
        )


class IntegratedDirectionalGradients(IntegratedGradients):
    """Integrated directional gradients, spread over the pixels of each group (Sikdar et al. 2021)."""

    def attribute(
        self,
        inputs: Tensor,
        baselines: Tensor | float | None = None,
        target: int | list[int] | Tensor | None = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        feature_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As :meth:`IntegratedGradients.attribute`, but each pixel carries the directional gradient of its group.

        Args:
            feature_mask: (H, W) or (N, H, W) int64 group labels from 0, the channels of a pixel belonging together; by
                default every pixel is a group.

        Returns:
            (N, 1, H, W) directional gradients, and with ``return_convergence_delta`` the delta of the underlying
            integrated gradients.
        """
        integrals = self._integrate(
            inputs, baselines, target, additional_forward_args, n_steps, method, internal_batch_size
        )
        height, width = inputs.shape[2:]
        if feature_mask is None:
            feature_mask = torch.arange(height * width, device=inputs.device).view(height, width)
        masks = feature_mask.expand(len(inputs), height, width)
        directional = torch.stack(
            [
                directional_gradients(integral.attribution, integral.difference, mask)[mask].unsqueeze(0)
                for integral, mask in zip(integrals, masks, strict=True)
            ]
        ).to(inputs.dtype)
        return (directional, _delta(integrals, inputs)) if return_convergence_delta else directional


def _delta(integrals: list[PathIntegral], inputs: Tensor) -> Tensor:
    return torch.tensor([-integral.residual for integral in integrals], dtype=inputs.dtype, device=inputs.device)


def _two_dimensional(forward: Callable[..., Tensor], additional: Any) -> Callable[[Tensor], Tensor]:
    """The forward function with its further arguments bound, and one score a row as a column."""
    extra = () if additional is None else additional if isinstance(additional, tuple) else (additional,)

    def scores(rows: Tensor) -> Tensor:
        output = forward(rows, *extra)
        return output.unsqueeze(1) if isinstance(output, Tensor) and output.ndim == 1 else output

    return scores


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
