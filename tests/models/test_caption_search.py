from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import BEGIN, END, Captioner, Dimensions
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.search import Caption, search
from tests.models.captioning import Reference, full, full_model, regions, small, small_model

FLOAT32: Any = {"rel": 1e-5, "abs": 1e-6}
"""Tolerance of log-probabilities: near 0 they are differences of numbers of the logits' size, a few units each."""


@pytest.fixture(name="model")
def _model() -> Captioner:
    return small_model()


def assert_greedy(model: Captioner, reference: Reference) -> None:
    for (found,), wanted in zip(search(model, reference.encoded(model)), reference.greedy(), strict=True):
        assert found.ended == wanted["ended"]
        assert list(found.words[:-1] if found.ended else found.words) == wanted["ids"]
        assert found.log_probabilities.tolist() == pytest.approx(wanted["logprobs"], **FLOAT32)
        assert found.log_probability == pytest.approx(wanted["logprob"], **FLOAT32)


def assert_beams(model: Captioner, reference: Reference, width: int) -> None:
    """The original's search put right, but for its quirk of going on after an end sign at the very beginning."""
    found = search(model, reference.encoded(model), width, may_be_empty=False)
    wanted: Any = reference.captions["beam_not_original"][str(width)].values()
    for captions, beams in zip(found, wanted, strict=True):
        assert [list(caption.words) for caption in captions] == [beam["ids"] for beam in beams]
        for caption, beam in zip(captions, beams, strict=True):
            assert caption.mean_log_probability == pytest.approx(beam["score"], **FLOAT32)
            assert caption.log_probabilities.tolist() == pytest.approx(beam["logprobs"], **FLOAT32)


@pytest.mark.upstream
def test_greedy_captions_equal_upstream() -> None:
    assert_greedy(small_model(), small())
    assert_greedy(full_model(), full())


@pytest.mark.upstream
@pytest.mark.parametrize("width", [1, 3, 5])
def test_beam_search_equals_upstream_put_right(width: int) -> None:
    assert_beams(small_model(), small(), width)
    assert_beams(full_model(), full(), width)


@pytest.mark.upstream
def test_scores_end_with_the_caption(model: Captioner) -> None:
    """Upstream's greedy score goes on until the batch's last caption has ended: −42.3 for −6.4."""
    (best,) = search(model, small().encoded(model))[0]
    assert best.words == (19, 19, END)
    assert best.log_probability == pytest.approx(-6.4165, abs=1e-4)
    assert small().greedy()[0]["original_logprob"] == pytest.approx(-42.255, abs=1e-3)
    assert best.mean_log_probability == pytest.approx(best.log_probability / 3)


def all_captions(
    model: Captioner, nodes: Tensor, image: Tensor, graph: Any, length: int
) -> dict[tuple[int, ...], float]:
    """Log-probability of every caption of up to so many words, from a teacher-forced pass."""
    words = range(model.dimensions.words)
    found = {}
    for caption in product(words, repeat=length):
        caption = caption[: caption.index(END) + 1] if END in caption else caption
        if caption not in found:
            trace = model(nodes, image, graph, torch.tensor([[BEGIN, *caption[:-1]]]))
            each = trace.logits.log_softmax(2)[0].gather(1, torch.tensor(caption).unsqueeze(1))
            found[caption] = each.sum().item()
    return found


def test_a_wide_beam_finds_the_best_of_all_captions() -> None:
    torch.manual_seed(3)
    model = Captioner(Dimensions(words=4, region=5, image=3, hidden=8)).eval().requires_grad_(False)
    model.decoder.embedding.we.weight *= 4
    graph = graph_tensors([lay_out(regions()[3])])
    nodes, image = torch.rand(1, graph.mask.shape[1], 5), torch.rand(1, 3)
    every = all_captions(model, nodes, image, graph, length=3)
    # Of four words the four best of each length may all have to be followed.
    found = search(model, model.encode(nodes, image, graph), width=4, max_words=3, ranking="log_probability")[0]
    assert len(found) == 4 and found[0].log_probability == max(one.log_probability for one in found)
    for caption in found:
        assert caption.log_probability == pytest.approx(every[caption.words], abs=1e-5)
    assert found[0].log_probability == pytest.approx(max(every.values()), abs=1e-5)


def test_captions_of_a_beam_are_their_own(model: Captioner) -> None:
    """Words, gates and attention of every beam are those of a teacher-forced pass over its words."""
    reference = small()
    for place, captions in enumerate(search(model, reference.encoded(model), 4)):
        assert len(captions) == 4
        assert len({caption.words for caption in captions}) == 4
        rows = torch.tensor([place])
        tensors = graph_tensors([lay_out(reference.graphs[place], 10)], 10)
        for caption in captions:
            words = torch.tensor([[BEGIN, *caption.words[:-1]]])
            trace = model(reference.nodes[rows], reference.image[rows], tensors, words)
            each = trace.logits.log_softmax(2)[0].gather(1, torch.tensor(caption.words).unsqueeze(1)).squeeze(1)
            for given, wanted in (
                (caption.log_probabilities, each),
                (caption.attention, trace.attention[0, :, tensors.mask[0]]),
                (caption.beta, trace.beta[0]),
                (caption.flow_gate, trace.flow_gate[0]),
            ):
                assert torch.allclose(given, wanted, atol=1e-5)
            assert caption.ended == (caption.words[-1] == END)
            assert END not in caption.words[:-1]
        means = [caption.mean_log_probability for caption in captions]
        assert means == sorted(means, reverse=True)


def assert_same(given: list[Caption], wanted: list[Caption]) -> None:
    assert [one.words for one in given] == [one.words for one in wanted]
    scores = [[one.log_probability for one in captions] for captions in (given, wanted)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_searches_of_a_batch_do_not_meet(model: Captioner, width: int) -> None:
    reference = small()
    encoded = reference.encoded(model)
    together = search(model, encoded, width)
    for place, captions in enumerate(together):
        rows = torch.tensor([place])
        alone = captioner.Encoded(encoded.context.rows(rows), encoded.state.rows(rows))
        assert_same(search(model, alone, width)[0], captions)


def test_captions_may_be_empty() -> None:
    """The caption of the reference's third graph begins with an end sign."""
    model, encoded = full_model(), full().encoded(full_model())
    (empty,) = search(model, encoded)[2]
    assert empty.words == (END,) and empty.ended
    (longer,) = search(model, encoded, may_be_empty=False)[2]
    assert longer.words[0] == END and len(longer.words) > 1


def test_captions_are_cut_off(model: Captioner) -> None:
    for (cut,), (whole,) in zip(
        *(search(model, small().encoded(model), max_words=most) for most in (2, 25)), strict=True
    ):
        assert cut.words == whole.words[:2]
        assert cut.ended == (cut.words == whole.words and whole.ended)
    for captions in search(model, small().encoded(model), 31, max_words=1):  # of all words
        assert sorted(caption.words[0] for caption in captions) == list(range(31))
        assert sum(torch.tensor([one.log_probability for one in captions]).exp()) == pytest.approx(1, abs=1e-5)


def test_arguments(model: Captioner) -> None:
    encoded = small().encoded(model)
    with pytest.raises(ArgumentError, match="width: wanted 1 to 31, got 32"):
        search(model, encoded, 32)
    with pytest.raises(ArgumentError, match="max_words: wanted at least 1, got 0"):
        search(model, encoded, max_words=0)
