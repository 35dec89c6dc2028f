"""The uncertainty of estimated values of groups, by the covariance of their errors."""

from __future__ import annotations

from torch import Tensor

from imagexplain.attribution.paths.path_integral import relative_to


def standard_errors(covariance: Tensor, incidence: Tensor | None = None) -> Tensor:
    """Standard errors (G,), float64, of values, or of their sums.

    Args:
        covariance: Covariance (P, P) of the errors of P values.
        incidence: Incidence (P, G): 1 where a value is part of a sum; None for the values themselves.
    """
    if incidence is None:
        return covariance.diagonal().clamp(min=0).sqrt()
    sums = incidence.to(covariance)
    return ((covariance @ sums) * sums).sum(0).clamp(min=0).sqrt()


def relative_uncertainty(values: Tensor, errors: Tensor, total: float) -> float:
    """Twice the largest standard error, relative to the larger of |f(x) − f(b)| and Σ|φ|.

    Args:
        values: Values φ (G,).
        errors: Standard errors (G,).
        total: Difference f(x) − f(b) of the scores.
    """
    return 2 * errors.max().item() / relative_to(total, values)
