from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner, Dimensions, losses
from imagexplain.models.captioners.decoder import Step
from imagexplain.models.captioners.graph_encoder import order_table
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.search import search
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.vision import scene_graph
from imagexplain.vision.scene_graph import SceneGraph
from tests.models.captioning import EGA, Reference, full, full_model, regions, small, small_model, worst
from tests.models.same import assert_same_tensors

FAIR = 1e-5
"""Largest error, relative to each array's largest value; 5e-7 is seen of the small model, 2e-6 at full size."""


@pytest.fixture(name="model")
def _model() -> Captioner:
    return small_model()


def steps(model: Captioner, reference: Reference) -> Iterator[tuple[Tensor, Step]]:
    """Memory before each step, and the step."""
    encoded = reference.encoded(model)
    state = encoded.state
    for words in reference.ids[:, :-1].unbind(1):
        step = model.decoder.step(encoded.context, state, words)
        yield state.memory, step
        state = step.state


def computed(model: Captioner, reference: Reference) -> dict[str, Tensor]:
    """All that the original recorded, by its names."""
    found: dict[str, Tensor] = {}
    encoder: Any = model.attn_encoder

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found.update({name: output})

    hooks = [encoder.layers[place].register_forward_hook(keep(f"layer{place}")) for place in (0, 1)]
    hooks.append(encoder.first_embedding.register_forward_hook(keep("embedded")))
    hooks.append(
        encoder.first_embedding.register_forward_pre_hook(lambda _, inputs: found.update(role_features=inputs[0]))
    )
    found["global"] = reference.encoded(model).context.vector
    for hook in hooks:
        hook.remove()
    trace = model(reference.nodes, reference.image, reference.tensors, reference.ids[:, :-1])
    found |= {
        name: getattr(trace, name) for name in ("logits", "attention", "content", "beta", "flow_gate", "sentinel")
    }
    memories, taken = zip(*steps(model, reference), strict=True)
    found["memory"], found["memory_after_last_step"] = torch.stack(memories, 1), taken[-1].state.memory
    found |= {name: torch.stack([getattr(step, name) for step in taken], 1) for name in ("erase", "add")}
    states = ("h_attn", "c_attn", "h_lang", "c_lang")
    found |= {name: torch.stack([getattr(step.state, name) for step in taken], 1) for name in states}
    targets, mask = reference.ids[:, 1:], reference.mask[:, 1:]
    found["loss"], found["loss_per_caption"] = losses(trace.logits, targets, mask)
    # What is recorded at full size in place of large arrays.
    top = trace.logits.topk(8, 2)
    found |= {"encoder": found["layer1"], "logits_first64": trace.logits[:, :, :64], "top8_logits": top.values}
    found |= {
        "logsumexp": trace.logits.logsumexp(2),
        "memory_norm": found["memory"].norm(dim=3),
        "top8_ids": top.indices,
    }
    found["target_logits"] = trace.logits.gather(2, targets.unsqueeze(2)).squeeze(2)
    return found


INPUTS = {"mp_fts", "attn_fts", "index", "greedy_words", "greedy_logprobs"}


@pytest.mark.upstream
def test_the_small_model_equals_upstream(model: Captioner) -> None:
    found, wanted = computed(model, small()), small().outputs
    assert {
        name: worst(found[name], wanted[name])
        for name in wanted.keys() - INPUTS
        if worst(found[name], wanted[name]) > FAIR
    } == {}
    assert len(wanted.keys() - INPUTS) == 21


@pytest.mark.upstream
def test_the_model_at_full_size_equals_upstream() -> None:
    found, wanted = computed(full_model(), full()), full().outputs
    assert torch.equal(found.pop("top8_ids"), wanted["top8_ids"].long())
    names = wanted.keys() - INPUTS - {"top8_ids"}
    assert {name: worst(found[name], wanted[name]) for name in names if worst(found[name], wanted[name]) > FAIR} == {}
    assert len(names) == 17


@pytest.mark.upstream
def test_names_and_numbers_of_weights_equal_upstream() -> None:
    model = full_model()
    keys = json.loads((EGA / "keys.json").read_text())
    wanted = {f"{part}.{name}": tuple(shape) for part, own in keys["state_dict"].items() for name, shape, _ in own}
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == wanted
    parts = {
        "mp_encoder": model.mp_encoder,
        "attn_encoder": model.attn_encoder,
        "decoder": model.decoder,
    }
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()} == keys["per_submodule"]
    assert model.dimensions == Dimensions(words=10942, region=2048, image=2048, hidden=512)
    assert worst(order_table(20, 32), checkpoint.read(EGA / "small.th")["attn_encoder.attr_order_embeds"]) < 1e-6


@pytest.mark.upstream
def test_training_equals_upstream() -> None:
    reference, wanted = small(), json.loads((EGA / "small_training.json").read_text())
    model = captioner.build(checkpoint.read(EGA / "small.th"))  # in eval(): no dropout

    def loss() -> Tensor:
        trace = model(reference.nodes, reference.image, reference.tensors, reference.ids[:, :-1])
        return losses(trace.logits, reference.ids[:, 1:], reference.mask[:, 1:])[0]

    loss().backward()
    norms = {
        name: parameter.grad.norm().item() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    assert norms == pytest.approx(wanted["gradient_norms_of_the_loss"], rel=1e-5)
    optimiser, seen = torch.optim.Adam(model.parameters(), 2e-4), []
    for _ in range(10):
        optimiser.zero_grad()
        (value := loss()).backward()
        optimiser.step()
        seen.append(value.item())
    assert [*seen, loss().item()] == pytest.approx(wanted["adam"]["losses_before_each_of_10_steps_and_after"], rel=1e-5)


def test_both_containers_hold_the_same_model() -> None:
    one, other = (checkpoint.load(EGA / name) for name in ("small.th", "small_legacy.th"))
    assert_same_tensors(one.tensors, other.tensors)
    assert one.taken == other.taken == ""
    parts = captioner.export(captioner.build(one.tensors))
    assert list(parts) == ["mp_encoder", "attn_encoder", "decoder"]
    assert_same_tensors(
        {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}, one.tensors
    )


def test_every_tensor_is_accounted_for() -> None:
    state = checkpoint.read(EGA / "small.th")
    with pytest.raises(CheckpointError, match=r"missing: decoder\.address_layer\.0\.bias"):
        captioner.build({name: value for name, value in state.items() if name != "decoder.address_layer.0.bias"})
    with pytest.raises(CheckpointError, match=r"unexpected: decoder\.fc\.weight"):
        captioner.build(state | {"decoder.fc.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"wrongly shaped: decoder\.attn_w \(wanted|wrongly shaped: "):
        captioner.build(state | {"decoder.attn.attn_w.weight": torch.zeros(1, 17)})
    with pytest.raises(CheckpointError, match=r"wanted a tensor decoder\.embedding\.we\.weight"):
        captioner.build({"a": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="the shapes fit no captioner"):
        captioner.build(state | {"mp_encoder.ft_embed.weight": torch.zeros(16, 16)})


def test_teacher_forced_equals_step_by_step_bit_for_bit(model: Captioner) -> None:
    reference = small()
    trace = model(reference.nodes, reference.image, reference.tensors, reference.ids[:, :-1])
    taken = [step for _, step in steps(model, reference)]
    assert torch.equal(trace.logits, torch.stack([model.decoder.logits(step.state.h_lang) for step in taken], 1))
    assert torch.equal(trace.attention, torch.stack([step.state.attention for step in taken], 1))
    for name in ("content", "beta", "flow_gate", "sentinel"):
        assert torch.equal(getattr(trace, name), torch.stack([getattr(step, name) for step in taken], 1)), name


def test_attention_and_gates_are_shares(model: Captioner) -> None:
    reference = small()
    trace = model(reference.nodes, reference.image, reference.tensors, reference.ids[:, :-1])
    padding = ~reference.tensors.mask.unsqueeze(1).expand_as(trace.attention)
    for shares in (trace.attention, trace.content, trace.flow_gate):
        assert (shares >= 0).all() and (shares.sum(2) - 1).abs().max() < 1e-5
    assert not trace.attention[padding].any() and not trace.content[padding].any()


def captions_of(
    model: Captioner, graphs: list[SceneGraph], nodes: list[Tensor], image: Tensor, width: int | None
) -> Any:
    """Greedy captions of graphs with the features of their own nodes, padded to a width."""
    tensors = graph_tensors([lay_out(graph) for graph in graphs], width)
    padded = torch.stack([nn.functional.pad(own, (0, 0, 0, tensors.mask.shape[1] - len(own))) for own in nodes])
    with torch.no_grad():
        return [best for (best,) in search(model, model.encode(padded, image, tensors))]


def own_features(graphs: list[SceneGraph]) -> list[Tensor]:
    """Features of each graph's nodes, the same for nodes of one box, as image features are."""
    generator = torch.Generator().manual_seed(1)
    boxes = {node.box for graph in graphs for node in graph.nodes}
    by_box = {box: torch.randn(32, generator=generator).relu() for box in sorted(boxes, key=lambda box: box.corners)}
    return [torch.stack([by_box[node.box] for node in graph.nodes]) for graph in graphs]


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(len(regions()), 24, generator=torch.Generator().manual_seed(2))


def assert_same_captions(given: Any, wanted: Any) -> None:
    """The same words and scores, and the same attention but for the order of the nodes."""
    for one, other in zip(given, wanted, strict=True):
        assert one.words == other.words
        assert one.log_probability == pytest.approx(other.log_probability, abs=2e-5)
        assert torch.allclose(one.attention.sort(1).values, other.attention.sort(1).values, atol=1e-5)


@pytest.mark.parametrize("width", [16, 40])
def test_padding_changes_nothing(model: Captioner, image: Tensor, width: int) -> None:
    graphs = regions()
    nodes = own_features(graphs)
    assert_same_captions(
        captions_of(model, graphs, nodes, image, width), captions_of(model, graphs, nodes, image, None)
    )


def test_no_caption_depends_on_its_batch(model: Captioner, image: Tensor) -> None:
    graphs = regions()
    nodes = own_features(graphs)
    alone = [captions_of(model, [graphs[i]], [nodes[i]], image[i : i + 1], None)[0] for i in range(len(graphs))]
    assert_same_captions(captions_of(model, graphs, nodes, image, None), alone)


def test_names_never_matter(model: Captioner, image: Tensor) -> None:
    def renamed(graph: SceneGraph) -> SceneGraph:
        objects = tuple(replace(one, name="x", attributes=("物",) * len(one.attributes)) for one in graph.objects)
        return SceneGraph(objects, tuple(replace(each, name="z") for each in graph.relationships))

    graphs = regions()
    nodes = own_features(graphs)
    renamed_captions = captions_of(model, list(map(renamed, graphs)), nodes, image, None)
    for one, other in zip(renamed_captions, captions_of(model, graphs, nodes, image, None), strict=True):
        assert one.words == other.words and torch.equal(one.log_probabilities, other.log_probabilities)


def test_only_the_first_object_has_a_place(model: Captioner, image: Tensor) -> None:
    """Other objects and the relationships in another order give the same captions; another first object does not."""

    def reordered(graph: SceneGraph, first: int) -> SceneGraph:
        others = [one for place, one in enumerate(graph.objects) if place != first]
        return SceneGraph((graph.objects[first], *reversed(others)), graph.relationships[::-1])

    graphs = regions()
    wanted = captions_of(model, graphs, own_features(graphs), image, None)
    kept = [reordered(graph, 0) for graph in graphs]
    assert_same_captions(captions_of(model, kept, own_features(kept), image, None), wanted)
    moved = [reordered(graph, len(graph.objects) - 1) for graph in graphs]
    changed = captions_of(model, moved, own_features(moved), image, None)
    assert any(
        abs(one.log_probability - other.log_probability) > 1e-3 for one, other in zip(changed, wanted, strict=True)
    )


def test_the_order_of_attributes_is_an_input(model: Captioner) -> None:
    graph = scene_graph.read({"objects": [{"box": [0, 0, 9, 9], "attributes": 3}]})
    nodes = own_features([graph])[0].unsqueeze(0)
    tensors = graph_tensors([lay_out(graph)])
    other = replace(tensors, orders=tensors.orders[:, [0, 2, 1, 3]])
    one, two = (model.encode(nodes, torch.zeros(1, 24), each).state.memory for each in (tensors, other))
    assert not torch.allclose(one, two)
    assert torch.allclose(one[:, [0, 2, 1, 3]], two, atol=1e-6)  # nodes follow their orders


@pytest.mark.parametrize(
    "pairs",
    [[[0, 1], [1, 2], [2, 0]], [[0, 0]], [[0, 1], [0, 1], [1, 0]], [[i, i] for i in range(3)] * 40],
    ids=["cycle", "self", "one pair thrice", "many"],
)
def test_graphs_that_look_odd(model: Captioner, pairs: list[list[int]]) -> None:
    objects = [{"box": [0, 0, 9, 9], "attributes": 19}, {"box": [0, 0, 9, 9]}, {"box": [3, 3, 9, 9]}]
    graph = scene_graph.read({"objects": objects, "relationships": pairs})
    (caption,) = captions_of(model, [graph], own_features([graph]), torch.ones(1, 24), None)
    assert caption.log_probabilities.isfinite().all()
    assert (caption.attention.sum(1) - 1).abs().max() < 1e-5


def test_features_of_another_shape(model: Captioner) -> None:
    reference = small()
    with pytest.raises(ArgumentError, match=r"nodes: wanted features of \(10, 10, 32\), got \(10, 10, 31\)"):
        model.encode(reference.nodes[..., 1:], reference.image, reference.tensors)
    with pytest.raises(ArgumentError, match=r"image: wanted features of \(10, 24\), got \(9, 24\)"):
        model.encode(reference.nodes, reference.image[1:], reference.tensors)


def test_double_precision(model: Captioner) -> None:
    reference = small()
    features = reference.nodes.double(), reference.image.double()
    exact = copy.deepcopy(model).double()(*features, reference.tensors, reference.ids[:, :-1])
    assert exact.logits.dtype == torch.float64
    assert worst(exact.logits, reference.outputs["logits"].double()) < FAIR


def test_a_new_model_starts_as_upstream_does() -> None:
    """Uniform over the words; forget gates that are open."""
    torch.manual_seed(0)
    model = Captioner(Dimensions(words=200, region=32, image=24, hidden=16)).eval()
    reference = small()
    trace = model(reference.nodes, reference.image, reference.tensors, reference.ids[:, :-1])
    loss, _ = losses(trace.logits, reference.ids[:, 1:], reference.mask[:, 1:])
    assert loss.item() == pytest.approx(torch.tensor(200.0).log().item(), abs=0.1)
    assert model.decoder.attn_lstm.bias_ih[16:32].tolist() == [1] * 16
    assert model.train().decoder.dropout.p == 0.5


def test_gradients_stay_as_they_are(model: Captioner) -> None:
    """Decoding switches no gradients off for those who come after."""
    assert torch.is_grad_enabled()
    search(model, small().encoded(model))
    assert torch.is_grad_enabled()
