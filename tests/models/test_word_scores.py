from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagexplain.attribution.paths.adaptive import integrate_targets_adaptive
from imagexplain.attribution.paths.path_integral import PathIntegral
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.paths.several_targets import integrate_targets
from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.word_scores import Kind, WordScores, pack
from tests.models.captioning import EGA, Reference, arrays, full, full_model, small, small_model, worst

KINDS: dict[str, Kind] = {"logit": "logit", "logprob": "log_probability"}
"""Kinds of scores by the reference's names."""


@pytest.fixture(name="model")
def _model() -> Captioner:
    return small_model()


def word_scores(model: Captioner, reference: Reference, place: int, **options: Any) -> tuple[WordScores, Tensor]:
    """Scores of the words of the reference's greedy caption, and the packed features."""
    words = [*reference.greedy()[place]["ids"], 1][:25]
    tensors = graph_tensors([lay_out(reference.graphs[place], 10)], 10)
    return WordScores(model, tensors, words, **options), pack(reference.nodes[place], reference.image[place])


def integrals(scores: WordScores, packed: Tensor, steps: int) -> list[PathIntegral]:
    targets = torch.arange(len(scores.positions))
    rule = quadrature("gauss_legendre", steps)
    return integrate_targets(scores, packed, torch.zeros_like(packed), targets, rule, chunk=steps)


@pytest.mark.upstream
@pytest.mark.parametrize("kind", ["logit", "logprob"])
def test_integrated_gradients_equal_upstream(model: Captioner, kind: str) -> None:
    """All words of a caption in one pass, against Captum on one word at a time."""
    wanted = arrays("small_ig.npz")
    with np.load(EGA / "small_ig.npz") as content:
        kinds = content["score_kind"].tolist()
    for place in range(4):
        rows = [
            row
            for row, (of, named) in enumerate(zip(wanted["graph"].tolist(), kinds, strict=True))
            if (of, named) == (place, kind)
        ]
        steps = wanted["step"][rows].tolist()
        scores, packed = word_scores(model, small(), place, positions=steps, kind=KINDS[kind])
        assert [scores.words[step] for step in steps] == wanted["token"][rows].tolist()
        for row, integral in zip(rows, integrals(scores, packed, 50), strict=True):
            nodes, image = (own[0] for own in scores.unpack(integral.attribution.unsqueeze(0)))
            assert worst(nodes, wanted["nodes"][row]) < 1e-5
            assert worst(image, wanted["glob"][row]) < 1e-5
            assert worst(nodes.sum(1), wanted["per_node"][row]) < 1e-5
            assert image.sum().item() == pytest.approx(wanted["global_sum"][row].item(), abs=1e-5)
            assert integral.score == pytest.approx(wanted["score"][row].item(), abs=1e-5)
            assert integral.baseline_score == pytest.approx(wanted["baseline_score"][row].item(), abs=1e-5)
            assert integral.residual == pytest.approx(-wanted["captum_delta"][row].item(), abs=1e-5)


@pytest.mark.upstream
def test_integrated_gradients_at_full_size_equal_upstream() -> None:
    for wanted in json.loads((EGA / "full_ig.json").read_text()):
        chosen: dict[str, Any] = {"positions": [wanted["step"]], "kind": KINDS[wanted["score_kind"]]}
        scores, packed = word_scores(full_model(), full(), wanted["graph"], **chosen)
        assert scores.words[wanted["step"]] == wanted["token"]
        (integral,) = integrals(scores, packed, 20)
        nodes, image = scores.unpack(integral.attribution.unsqueeze(0))
        assert worst(nodes[0].sum(1), torch.tensor(wanted["per_node"])) < 1e-5
        assert image.sum().item() == pytest.approx(wanted["global_sum"], abs=1e-5)
        assert (integral.score, integral.baseline_score) == pytest.approx(
            (wanted["score"], wanted["baseline_score"]), abs=1e-5
        )
        assert integral.residual == pytest.approx(-wanted["captum_delta"], abs=2e-5)


def test_scores_are_those_of_the_teacher_forced_pass(model: Captioner) -> None:
    reference, place = small(), 3
    for kind in KINDS.values():
        scores, packed = word_scores(model, reference, place, kind=kind)
        words = torch.tensor([[0, *scores.words[:-1]]])
        rows = torch.tensor([place])
        trace = model(reference.nodes[rows], reference.image[rows], scores.graph, words)
        every = trace.logits if kind == "logit" else trace.logits.log_softmax(2)
        wanted = every[0].gather(1, torch.tensor(scores.words).unsqueeze(1)).squeeze(1)
        assert torch.allclose(scores(packed.unsqueeze(0))[0], wanted, atol=1e-5)
        some, _ = word_scores(model, reference, place, positions=[2, 0], kind=kind)
        assert torch.allclose(some(packed.unsqueeze(0))[0], wanted[[2, 0]], atol=1e-5)


def test_groups_are_the_nodes_and_the_whole_image(model: Captioner) -> None:
    scores, packed = word_scores(model, small(), 0)
    groups = scores.groups()
    assert groups.shape == (6 + 1, 1, 10 * 32 + 24)  # of ten places, six nodes
    assert groups.sum((1, 2)).tolist() == [32] * 6 + [24]
    assert groups.sum(0).max() == 1
    nodes, image = scores.unpack(packed.unsqueeze(0))
    assert torch.equal(packed[0][groups[2]], nodes[0, 2]) and torch.equal(packed[0][groups[-1]], image[0])


def test_words_are_refined_until_each_node_is_certain(model: Captioner) -> None:
    scores, packed = word_scores(model, small(), 0)
    groups, targets = scores.groups(), torch.arange(len(scores.positions))
    refined = integrate_targets_adaptive(
        scores, packed, torch.zeros_like(packed), targets, groups, 1e-3, chunk=32, most=400
    )
    assert all(one.converged and one.integral.relative_residual < 1e-3 for one in refined)
    assert max(one.relative_residual for one in integrals(scores, packed, 50)) > 1e-3


def test_arguments(model: Captioner) -> None:
    tensors = graph_tensors([lay_out(small().graphs[0])])
    with pytest.raises(ArgumentError, match="positions: wanted 0 to 1, got 2"):
        WordScores(model, tensors, [3, 1], [2])
    with pytest.raises(ArgumentError, match="positions: wanted at least one, got none"):
        WordScores(model, tensors, [])
    with pytest.raises(ArgumentError, match="graph: wanted one graph, got 10"):
        WordScores(model, small().tensors, [3, 1])
