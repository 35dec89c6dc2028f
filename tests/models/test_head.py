"""Heads: what a network's output means, and the score that is explained, of small cases worked out by hand."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from imagexplain.errors import ArgumentError
from imagexplain.models.head import Head, attach, log_odds, remarks, with_logits_found

SCORES = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.5, 4.0]])


@dataclass
class Logits(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class Answer:
    features: Tensor
    scores: Tensor


Pair = namedtuple("Pair", ["features", "logits"])


class Given(nn.Module):
    """A network that returns what it was made with."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output
        self.eval()

    def forward(self, images: Tensor) -> Any:
        return self.output


def of(output: Any, /, **fields: Any) -> Tensor:
    """The scores of a network that returns this for two images."""
    scores: Tensor = attach(Given(output), Head(**fields))(torch.zeros(2, 3, 4, 4))
    return scores


@pytest.mark.parametrize(
    ("output", "field"),
    [
        (SCORES, None),
        ({"loss": None, "logits": SCORES}, None),
        (OrderedDict(out=SCORES, aux=-SCORES), "out"),
        (Logits(logits=SCORES), None),
        (Pair(torch.zeros(2, 5), SCORES), None),
        (Answer(torch.zeros(2, 5), SCORES), "scores"),
        ((torch.zeros(2, 5), SCORES), 1),
        ((torch.zeros(2, 5), SCORES), -1),
        ([SCORES], "0"),
        (Logits(logits=SCORES), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_scores_are_found_in_whatever_a_network_returns(output: Any, field: str | int | None) -> None:
    assert of(output, output=field) is SCORES  # a softmax's logits are explained as they are


def test_a_field_that_is_none_is_told_with_those_that_are_there() -> None:
    for output, field, words in (
        ({"out": SCORES}, None, "output: wanted the field that holds the scores, got an output of out"),
        ({"out": SCORES}, "logits", "output: wanted a field of the network's output, out, got logits"),
        ((SCORES, SCORES), 2, "0, 1, got 2"),
        (SCORES, 0, "a Tensor, got 0"),
        ("scores", None, "an output of a str"),
        (SCORES[:1], None, r"wanted scores \(2, classes\) for 2 images, got \(1, 3\)"),
        (torch.zeros(2, 3, 1, 1), None, r"got \(2, 3, 1, 1\)"),
        (torch.zeros(2), None, "`activation: sigmoid` or `none` for one"),
    ):
        with pytest.raises(ArgumentError, match=words) as caught:
            of(output, output=field)
        assert caught.value.field == "head"


def test_one_logit_explains_both_its_signs() -> None:
    logit = torch.tensor([3.0, -1.0])
    wanted = torch.tensor([[-3.0, 3.0], [1.0, -1.0]])
    head = Head(activation="sigmoid")
    for output in (logit, logit[:, None]):
        assert of(output, activation="sigmoid").equal(wanted)
    found = head.probabilities(wanted)
    assert found is not None and found.sum(1).allclose(torch.ones(2))
    assert found[0, 1].item() == pytest.approx(1 / (1 + math.exp(-3)))
    probability = of(logit, activation="sigmoid", score="probability")
    assert probability.allclose(found)
    # The same from a network that gives the probability alone.
    assert of(logit.sigmoid(), activation="sigmoid", gives="probabilities").allclose(wanted, atol=1e-5)
    assert head.predicted(wanted[1]) == 0


def test_labels_of_a_sigmoid_have_probabilities_of_their_own() -> None:
    scores, head = of(SCORES, activation="sigmoid"), Head(activation="sigmoid")
    assert scores is SCORES and head.score_kind == "logit" and not head.competes
    assert torch.equal(head.probabilities(SCORES), SCORES.sigmoid())  # type: ignore[arg-type]


def test_values_are_explained_as_they_are() -> None:
    head = Head(activation="none")
    assert head.score_kind == "value" and head.probabilities(SCORES) is None and head.predicted(SCORES[0]) == 0
    assert of(SCORES, activation="none") is SCORES
    assert of(SCORES[:, 0], activation="none").equal(SCORES[:, :1])


def test_a_temperature_divides_the_logits() -> None:
    assert of(SCORES, temperature=2.0).equal(SCORES / 2)
    assert of(SCORES, temperature=2.0, score="probability").allclose((SCORES / 2).softmax(1))
    assert of(SCORES, temperature=2.0, activation="sigmoid").equal(SCORES / 2)
    # p^(1/T), normalised, where only the probabilities p are known
    p = SCORES.softmax(1)
    cooled = of(p, temperature=2.0, gives="probabilities", score="probability")
    assert cooled.allclose(p.sqrt() / p.sqrt().sum(1, keepdim=True))


@pytest.mark.parametrize("gives", ["logits", "probabilities"])
def test_log_odds_of_a_softmax(gives: str) -> None:
    p = SCORES.softmax(1)
    head = Head(gives=gives, score="log_odds")  # type: ignore[arg-type]
    found = of(SCORES if gives == "logits" else p, gives=gives, score="log_odds")
    assert found.allclose(p.logit(), atol=1e-5) and not head.competes
    assert torch.allclose(head.probabilities(found), p)  # type: ignore[arg-type]
    assert Head(gives="probabilities").score_kind == "log_odds"


def test_log_odds_lose_nothing_next_to_certainty() -> None:
    logits = torch.tensor([[300.0, 0.0, 0.0], [40.0, 40.0, 40.0]], dtype=torch.float64)
    wanted = torch.tensor([[300 - math.log(2), -300.0, -300.0], [-math.log(2)] * 3], dtype=torch.float64)
    assert log_odds(logits).allclose(wanted)
    assert log_odds(logits.float()).allclose(wanted.float())
    gradient = torch.autograd.functional.jacobian(lambda rows: log_odds(rows)[0, 0], logits[:1])
    assert gradient.allclose(torch.tensor([[[1.0, -0.5, -0.5]]], dtype=torch.float64))
    assert torch.autograd.gradcheck(log_odds, SCORES.double().requires_grad_())


def test_a_head_is_of_the_root_alone_and_survives_a_copy() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).eval()
    names = [name for name, _ in network.named_modules()]
    image = torch.rand(2, 3, 2, 2)
    plain = network(image)
    copied = copy.deepcopy(attach(network, Head(activation="sigmoid")))
    assert [name for name, _ in network.named_modules()] == names
    assert copied(image).equal(torch.cat([-plain, plain], 1)) and network[1](network[0](image)).equal(plain)


@pytest.mark.parametrize(
    ("activation", "last"), [("softmax", nn.Softmax(1)), ("softmax", nn.LogSoftmax(1)), ("sigmoid", nn.Sigmoid())]
)
def test_logits_before_the_last_module_are_found(activation: Any, last: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(12, 4), last).eval()
    image = torch.rand(1, 3, 2, 2)
    wanted, given = network[:3](image), network(image)
    head = with_logits_found(network, Head(activation=activation, gives="probabilities"), image)
    assert head.probabilities_by == "3" and network[3] is last and head.score_kind == "logit"
    assert "the logits are the input of 3" in remarks(head, given)
    assert attach(network, head)(image).equal(wanted)
    assert not isinstance(network[3], type(last))


class Functional(nn.Module):
    """A network whose last step is no module, and that uses a module of its kind before."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.softmax = nn.Linear(12, 4), nn.Softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        return (self.softmax(self.linear(images.flatten(1))) * 50).softmax(1)


def test_what_is_not_found_is_said_with_its_saturation() -> None:
    torch.manual_seed(0)
    network, image = Functional().eval(), torch.rand(1, 3, 2, 2)
    head = with_logits_found(network, Head(gives="probabilities"), image)
    assert head == Head(gives="probabilities") and head.score_kind == "log_odds"
    certain = torch.tensor([[1 - 1e-7, 1e-7, 0.0, 0.0]])
    (remark,) = remarks(head, certain)
    assert "4 of 4 of a photo are within 1e-06 of 0 or 1" in remark and "p(1 − p) is 1.2e-07" in remark
    with pytest.raises(ArgumentError, match="score: wanted log_odds or probability"):
        with_logits_found(network, Head(gives="probabilities", score="logit"), image)
    with pytest.raises(ArgumentError, match=r"gives: wanted probabilities of a photo, within 0\.\.1, got "):
        remarks(head, SCORES[:1])


def test_scores_that_look_like_probabilities_are_pointed_out() -> None:
    p = SCORES[:1].softmax(1)
    assert "`head: {gives: probabilities}`" in remarks(Head(), p)[0]
    assert "log-probabilities" in remarks(Head(), p.log())[0]
    assert "after a sigmoid" in remarks(Head(activation="sigmoid"), SCORES[:1].sigmoid())[0]
    assert remarks(Head(), SCORES[:1]) == remarks(Head(activation="none"), p) == []
    assert "largest slope" in remarks(Head(score="probability"), SCORES[:1])[0]
