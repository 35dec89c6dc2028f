"""Heads: from whatever a network returns to the scores that are explained, and from those to probabilities.

:func:`attach` does it by a forward hook on the network itself, so that its layers keep their names, and every method,
which takes a function to scores (N, classes), is as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError

Activation = Literal["softmax", "sigmoid", "none"]
ScoreKind = Literal["logit", "log_odds", "probability", "value"]

SATURATED = 1e-6
"""Distance from 0 or 1 below which a probability in float32 tells little of its logit."""

_NEAR = 1e-3
"""Distance from 1 within which scores sum to 1."""

_LISTED = 8
"""Number of scores that a message names."""

DEFAULT_FIELD = "logits"
"""Field of an output of several that is taken unless a head names another."""

_ACTIVATIONS: dict[str, tuple[type[nn.Module], ...]] = {
    "softmax": (nn.Softmax, nn.LogSoftmax),
    "sigmoid": (nn.Sigmoid,),
}


@dataclass(frozen=True)
class Head:
    """The end of a network: what its output means, and the score that is explained.

    Attributes:
        activation: Relation of scores to probabilities: ``softmax`` where classes compete, ``sigmoid`` where each
            stands by itself (a single logit z of a binary classifier becomes two columns, −z and z), ``none`` where
            outputs are values of their own, as in regression.
        output: Key, attribute or index of the scores within an output of several; None for a tensor, or for the field
            ``logits``.
        temperature: Number that logits are divided by.
        gives: Meaning of the output of a network with an activation.
        score: Score that is explained; None for the value without an activation, else the logit, or the log-odds where
            a network gives probabilities of unknown logits.
        probabilities_by: Name of the module whose output the probabilities are and whose input the logits, which takes
            its output's place; None where there is none.

    Example:
        >>> import torch
        >>> from imagexplain.models.head import Head
        >>> binary = Head(activation="sigmoid")
        >>> scores = binary.scores({"logits": torch.tensor([[3.0]])}, 1)
        >>> scores.tolist()
        [[-3.0, 3.0]]
    """

    activation: Activation = "softmax"
    output: str | int | None = None
    temperature: float = 1.0
    gives: Literal["logits", "probabilities"] = "logits"
    score: ScoreKind | None = None
    probabilities_by: str | None = None

    @property
    def score_kind(self) -> ScoreKind:
        """Kind of the score that is explained."""
        if self.score is not None:
            return self.score
        if self.activation == "none":
            return "value"
        return "logit" if self._has_logits else "log_odds"

    @property
    def _has_logits(self) -> bool:
        return self.gives == "logits" or self.probabilities_by is not None

    def probabilities(self, scores: Tensor) -> Tensor | None:
        """Probabilities (…, classes) of the scores that are explained; None where values have none."""
        if self.activation == "none":
            return None
        if self.score_kind == "probability":
            return scores
        return scores.softmax(-1) if self.competes else scores.sigmoid()

    def predicted(self, scores: Tensor) -> int:
        """Index of what is explained unless another is asked for: the best class, or the first of the values."""
        return 0 if self.activation == "none" else int(scores.argmax())

    @property
    def competes(self) -> bool:
        """Tell whether the softmax of the scores that are explained is their probabilities."""
        return self.activation == "softmax" and self.score_kind == "logit"

    def scores(self, output: Any, count: int) -> Tensor:
        """Scores (count, classes) that are explained, of the network's output for so many images.

        Raises:
            ArgumentError: an output without such a field, or of another shape.
        """
        found = _column(self.select(output), count)
        if found.dtype in (torch.float16, torch.bfloat16):  # of logits next to each other little is left in 8 bits
            found = found.float()
        if self.activation == "none":
            return found
        if self.activation == "softmax" and found.shape[1] == 1:
            wanted = "wanted several scores for a softmax, or `activation: sigmoid` or `none` for one"
            raise ArgumentError("head", f"{wanted}, got one for each image")
        logits = found if self._has_logits else self._logits(found)
        if self.temperature != 1:
            logits = logits / self.temperature
        if self.activation == "sigmoid" and logits.shape[1] == 1:
            logits = torch.cat([-logits, logits], 1)  # (N, 2): against it, for it
        if self.score_kind == "probability":
            return logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()
        if self.score_kind == "log_odds" and self.activation == "softmax":
            return log_odds(logits)
        return logits

    def select(self, output: Any) -> Tensor:
        """The tensor that holds the scores within an output.

        Raises:
            ArgumentError: no such field, or one that is no tensor.
        """
        found = output
        if self.output is not None:
            found = _field(output, self.output)
        elif not isinstance(output, Tensor) and (named := _fields(output).get(DEFAULT_FIELD)) is not None:
            found = named
        if isinstance(found, Tensor):
            return found
        listed = ", ".join(_fields(output)) or f"a {type(found).__name__}"
        raise ArgumentError("head", f"output: wanted the field that holds the scores, got an output of {listed}")

    def _logits(self, probabilities: Tensor) -> Tensor:
        """Logits of probabilities: up to a constant for each image where classes compete, else each one's log-odds."""
        limits = torch.finfo(probabilities.dtype)
        if self.activation == "softmax":
            return probabilities.clamp_min(limits.tiny).log()
        return probabilities.logit(limits.eps)


def log_odds(logits: Tensor) -> Tensor:
    """log p/(1 − p) (N, K) of the softmax of logits (N, K): zᵢ − log Σ_{j≠i} exp zⱼ, exact where p is next to 1.

    Example:
        >>> import torch
        >>> from imagexplain.models.head import log_odds
        >>> log_odds(torch.tensor([[300.0, 0.0]])).tolist()
        [[300.0, -300.0]]
    """
    best = torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.argmax(1, keepdim=True), True)
    others = logits.masked_fill(best, -torch.inf).logsumexp(1, keepdim=True)
    # Any class but the best has a probability of at most 1/2, whose complement loses nothing.
    log_probabilities = logits.log_softmax(1)
    complement = log_probabilities.exp().masked_fill(best, 0)
    return torch.where(best, logits - others, log_probabilities - torch.log1p(-complement))


def attach(network: nn.Module, head: Head) -> nn.Module:
    """Attach a head to a network, whose calls then give the scores that are explained, (N, classes).

    Args:
        network: Network whose output has the scores somewhere; it is changed.
        head: Head of that output.

    Returns:
        The network.

    Raises:
        ArgumentError: no such module as the head names.
    """
    if head.probabilities_by is not None:
        if head.probabilities_by not in dict(network.named_modules()):
            raise ArgumentError("head", f"probabilities_by: wanted the name of a module, got {head.probabilities_by}")
        _replace(network, head.probabilities_by, nn.Identity())

    def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> Tensor:
        return head.scores(output, len(given[0]))

    network.register_forward_hook(hook)
    return network


@torch.no_grad()
def with_logits_found(network: nn.Module, head: Head, image: Tensor) -> Head:
    """The head, with the module that makes the probabilities, where the network ends in one whose input are logits.

    Args:
        network: Network in ``eval()`` without its head; it is left as it is.
        head: Head of a network that gives probabilities; any other is returned as it is.
        image: (1, C, H, W) image that the network is tried on.
    """
    if head.gives == "logits" or head.probabilities_by is not None or head.activation == "none":
        return head
    made: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda module, given, output: made.setdefault(name, []).append(output)

    kinds = _ACTIVATIONS[head.activation]
    candidates = {name: module for name, module in network.named_modules() if name and isinstance(module, kinds)}
    with ExitStack() as stack:
        for name, module in candidates.items():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        given = head.select(network(image))
    for name, outputs in made.items():
        if len(outputs) == 1 and _same(outputs[0], given):
            _replace(network, name, nn.Identity())
            try:
                logits = head.select(network(image))
            finally:
                _replace(network, name, candidates[name])
            if logits.shape == given.shape and torch.allclose(candidates[name](logits), given):
                return replace(head, probabilities_by=name)
    if head.activation == "softmax" and head.score == "logit":
        wanted = "score: wanted log_odds or probability, for no module was found whose input are the logits"
        raise ArgumentError("head", f"{wanted} of the network's probabilities, got logit")
    return head


def remarks(head: Head, output: Any) -> list[str]:
    """Sentences on what an output of a network tells about its head.

    Args:
        head: Head of the network, after :func:`with_logits_found`.
        output: Output of the network itself, without its head, for one image.

    Raises:
        ArgumentError: an output that is no probabilities where the head says so.
    """
    scores = _column(head.select(output), 1).double()
    within, total = bool(((scores >= 0) & (scores <= 1)).all()), scores.sum().item()
    if head.activation == "none" or head.probabilities_by is not None:
        return [f"the logits are the input of {head.probabilities_by}"] if head.probabilities_by is not None else []
    if head.gives == "probabilities":
        if not within:
            given = scores[0, :_LISTED].tolist()
            raise ArgumentError("head", f"gives: wanted probabilities of a photo, within 0..1, got {given}")
        return [
            _saturation(scores, "the logits behind the probabilities are not found, and their log-odds stand for them")
        ]
    found = []
    competing = head.activation == "softmax"
    if competing and within and abs(total - 1) < _NEAR:
        found.append("scores of a photo lie within 0..1 and sum to 1: after a softmax, `head: {gives: probabilities}`")
    if competing and (scores <= 0).all() and abs(scores.exp().sum().item() - 1) < _NEAR:
        found.append("scores of a photo are log-probabilities: after a LogSoftmax, `head: {gives: probabilities}`")
    if not competing and within:
        hint = "`head: {activation: sigmoid, gives: probabilities}`"
        found.append(f"scores of a photo lie within 0..1: after a sigmoid, {hint}")
    if head.score_kind == "probability":
        shown = head.probabilities(head.scores(output, 1))
        assert shown is not None
        found.append(_saturation(shown.double(), "probabilities are explained"))
    return found


def _saturation(probabilities: Tensor, why: str) -> str:
    """Words on how flat probabilities (1, classes) are: their slope by the logit, p·(1 − p), and how many have none."""
    slope = (probabilities * (1 - probabilities)).max().item()
    flat = int(((probabilities < SATURATED) | (probabilities > 1 - SATURATED)).sum())
    count = probabilities.numel()
    told = f"{flat} of {count} of a photo are within {SATURATED:g} of 0 or 1"
    return f"{why}: {told}, and the largest slope p(1 − p) is {slope:.1e}"


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _same(made: Tensor, given: Tensor) -> bool:
    return made.numel() == given.numel() and torch.equal(made.flatten(), given.flatten())


def _column(scores: Tensor, count: int) -> Tensor:
    """Scores (count, classes); those of one score for each image may lack the second axis."""
    if scores.ndim <= 1 and scores.numel() == count:
        return scores.reshape(count, 1)
    if scores.ndim != 2 or len(scores) != count:
        raise ArgumentError("head", f"wanted scores ({count}, classes) for {count} images, got {tuple(scores.shape)}")
    return scores


def _fields(output: Any) -> dict[str, Any]:
    """Fields of an output of several by name, or by index."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))  # of a named tuple
        return {str(name): value for name, value in zip(names, output, strict=True)}
    return {}


def _field(output: Any, name: str | int) -> Any:
    found = _fields(output)
    if isinstance(name, int) and -len(found) <= name < len(found):
        return list(found.values())[name]
    if str(name) in found:
        return found[str(name)]
    listed = ", ".join(found) or f"a {type(output).__name__}"
    raise ArgumentError("head", f"output: wanted a field of the network's output, {listed}, got {name}")


__all__ = ["Activation", "Head", "ScoreKind", "attach", "log_odds", "remarks", "with_logits_found"]
