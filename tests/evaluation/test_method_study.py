"""All methods on cases small enough to know the answer, and the whole comparison on two scenes."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evaluation import entries as lines
from evaluation import evaluate_methods, parallel
from evaluation.cases import Case, case
from evaluation.cost import measure_cost
from evaluation.entries import CONTROLS, Entry, entries_of, maps_of, supported
from evaluation.evaluated_model import EvaluatedModel, as_built
from evaluation.harness import Part, Result, Row
from evaluation.localisation import overlap
from evaluation.method_study import MethodStudy, group_scores, one_channel
from evaluation.method_tables import markdown, summary
from evaluation.randomization import THRESHOLD, agreement, fails, randomize_parameters
from imagexplain.attribution.config import AttributionConfig
from tests.evaluation.subjects import DRAWN, FEW, PREPROCESS, SEED, convolutional_subject, subject_of
from training.scenes import SceneSettings, scene


@pytest.fixture
def one() -> Case:
    return case(SEED, DRAWN - 1, SceneSettings(), PREPROCESS)


@pytest.fixture
def linear() -> EvaluatedModel:
    torch.manual_seed(0)
    return subject_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)))


@pytest.fixture
def convolutional() -> EvaluatedModel:
    return convolutional_subject()


def entry(method: str, **options: object) -> Entry:
    return Entry(method, AttributionConfig((method,), tuple(options.items())))


def study_of(
    entries: list[Entry], model: EvaluatedModel, one: Case, randomized: int = 0, noisy: int = 0
) -> MethodStudy:
    return MethodStudy(model, [one], FEW, entries, references(), randomized, noisy)


def scores_of_case(model: EvaluatedModel, entries: list[Entry], one: Case) -> Result:
    return study_of(entries, model, one).score(Part(0))


def sensitivity_of(entry: Entry, model: EvaluatedModel, one: Case) -> Result:
    return study_of([entry], model, one).score(Part(0, entry.name))


def references(count: int = 2) -> torch.Tensor:
    return torch.zeros(count, 3, 32, 32)


def test_the_object_itself_overlaps_wholly(one: Case) -> None:
    assert overlap(one.deciding.float()[None, None], one.deciding) == (1, 1)
    assert overlap(torch.zeros(1, 3, 32, 32), one.deciding) == (0, 0)


def test_overlap_by_hand() -> None:
    """The object is 2 × 2 pixels; the map shows one of them and one beside it: 1 of 5 pixels, and 2 of 6 in the box."""
    deciding = torch.zeros(4, 4, dtype=torch.bool)
    deciding[:2, :2] = True
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 1, 0, 1], maps[0, 2, 0, 2] = 2.0, -1.0
    assert overlap(maps, deciding) == (0.25, 0.25)
    by_mask, by_box = overlap(maps, deciding, "abs")
    assert by_mask == pytest.approx(1 / 5) and by_box == pytest.approx(1 / 5)


def test_a_map_that_does_not_look_at_the_model_fails() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 64, 64, generator=generator)
    same, other = agreement(first, first), agreement(first, second)
    assert same == pytest.approx({"parameter randomization": 1, "parameter randomization of magnitudes": 1}) and fails(
        same
    )
    assert max(other.values()) < 0.1 and not fails(other)
    flipped = agreement(first[:1], first[:1] * torch.randn(1, 64, 64, generator=generator).sign())
    assert (
        flipped["parameter randomization"] < 0.1
        and flipped["parameter randomization of magnitudes"] == pytest.approx(1)
        and fails(flipped)
    )
    assert agreement(first, -first)["parameter randomization"] == pytest.approx(1), "an order reversed is kept as well"


def test_an_empty_map_neither_passes_nor_fails() -> None:
    assert agreement(torch.rand(1, 8, 8), torch.zeros(1, 8, 8)) == {}
    assert not fails({}) and not fails({"parameter randomization": THRESHOLD})


def test_randomized_batch_norms_have_the_statistics_of_their_inputs(convolutional: EvaluatedModel) -> None:
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in convolutional.network.state_dict().items()}
    copy: Any = randomize_parameters(convolutional.network, 0, images)
    assert all(torch.equal(value, before[name]) for name, value in convolutional.network.state_dict().items())
    assert not copy.training and not torch.equal(copy[0].weight, before["0.weight"])
    inputs = copy[0](images)
    assert torch.allclose(copy[1].running_mean, inputs.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(copy[1].running_var, inputs.var((0, 2, 3)), rtol=1e-3)


def test_every_method_and_the_controls_line_up() -> None:
    names = [one.name for one in entries_of()]
    assert len(set(names)) == len(names)
    assert {"grad_cam", "kernel_shap", "blur_ig × grad_cam", "edges", "random"} <= set(names)
    few = [one.name for one in entries_of(["integrated_gradients", "grad_cam"])]
    smoothed = "integrated_gradients, 8 noisy copies"
    assert few == ["grad_cam", "integrated_gradients", "integrated_gradients × grad_cam", smoothed, "edges", "random"]
    with pytest.raises(ValueError, match=r"methods: wanted some of .*, got 'gradcam'"):
        entries_of(["gradcam"])


def test_methods_that_are_not_supported_are_listed_with_the_reason(
    linear: EvaluatedModel, convolutional: EvaluatedModel
) -> None:
    entries = entries_of(["grad_cam", "gradient", "guided_backprop", "integrated_gradients"])
    kept, reasons = supported(entries, linear.network, torch.zeros(1, 3, 32, 32))
    assert "wanted one with ReLUs" in reasons["guided_backprop"]
    assert reasons["grad_cam"].startswith("layer:") and reasons["integrated_gradients × grad_cam"].startswith("layer:")
    assert {"gradient", "integrated_gradients", "edges"} <= {one.name for one in kept}
    assert not {one.name for one in kept} & set(reasons)
    kept, reasons = supported(entries, convolutional.network, torch.zeros(1, 3, 32, 32))
    assert not reasons and len(kept) == len(entries)
    assert {one.plan.layer for one in kept if one.plan and "grad_cam" in one.plan.methods} == {"4"}


def test_methods_not_supported_for_an_image_are_left_out_and_counted(linear: EvaluatedModel, one: Case) -> None:
    entries = [entry("guided_backprop"), entry("gradient")]
    found = scores_of_case(linear, entries, one)
    assert {row.entry for row in found.values} == {"gradient"}
    assert "ReLU" in found.refused["guided_backprop"]
    result = summary(entries, {}, [found, found])
    assert result["refused"]["guided_backprop"]["images"] == 2
    assert sensitivity_of(entries[0], linear, one).values == {}


def test_other_errors_go_on(linear: EvaluatedModel, one: Case) -> None:
    with pytest.raises(ValueError, match="steps"):
        scores_of_case(linear, [entry("integrated_gradients", steps=0)], one)


@pytest.mark.parametrize(
    ("method", "options", "forward", "backward"),
    [
        ("gradient", {}, 1, 1),
        ("integrated_gradients", {"steps": 5}, 5, 5),
        ("smoothgrad", {"samples": 4}, 4, 4),
        ("expected_gradients", {"samples": 7}, 7, 7),
        ("rise", {"samples": 30, "cells": 4}, 30, 0),
        ("kernel_shap", {"samples": 40}, 2 + 40, 0),  # with the image and the baseline
    ],
)
def test_evaluations_are_counted(
    linear: EvaluatedModel, one: Case, method: str, options: dict[str, object], forward: int, backward: int
) -> None:
    with measure_cost(linear.network) as cost:
        maps_of(entry(method, **options), linear, one.image[None], one, references())
    assert (cost.forward, cost.backward) == (forward, backward)
    assert cost.seconds > 0 and not linear.network._forward_hooks


def test_feature_ablation_evaluates_each_superpixel(linear: EvaluatedModel, one: Case) -> None:
    with measure_cost(linear.network) as cost:
        maps_of(entry("feature_ablation"), linear, one.image[None], one, references())
    assert (cost.forward, cost.backward) == (1 + len(one.partitions["superpixels"]), 0)


def test_scores_of_superpixels(linear: EvaluatedModel, one: Case) -> None:
    """In a linear model a superpixel's shares sum to its effect, which is what each of its pixels has by group."""
    images, groups = one.image[None], one.partitions["superpixels"]
    shares, effects = entry("input_x_gradient"), entry("feature_ablation")
    by_shares = group_scores(shares, maps_of(shares, linear, images, one, references()), one)
    by_group = group_scores(effects, maps_of(effects, linear, images, one, references()), one)
    assert by_shares.shape == (1, len(groups))
    assert torch.allclose(by_shares, by_group, atol=1e-5)


def test_methods_get_what_they_want(linear: EvaluatedModel, one: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def keep(
        plan: AttributionConfig, model: object, images: torch.Tensor, targets: torch.Tensor, material: Any, **_: int
    ) -> Any:
        given[plan.name] = material
        return images

    monkeypatch.setattr(lines, "run", keep)
    for method in ("xrai", "guided_ig", "expected_gradients"):
        maps_of(entry(method), linear, torch.stack([one.image] * 2), one, references(5))
    photo = torch.from_numpy(scene(SEED, one.index).image)
    assert torch.equal(given["xrai"].pictures, torch.stack([photo] * 2))
    assert torch.equal(given["xrai"].groups[1], one.partitions["superpixels"].segments)
    assert given["guided_ig"].baselines.shape == (1, 2, 3, 32, 32), "one start for each image"
    assert given["xrai"].baselines is None, "it has its own"
    assert given["expected_gradients"].baselines.shape == (5, 2, 3, 32, 32), "all references for each image"


def test_gradients_join_as_magnitudes() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[-3.0, 2.0]]]])
    assert one_channel(entry("gradient"), maps).tolist() == [[[4, 4]]]
    assert one_channel(entry("input_x_gradient"), maps).tolist() == [[[-2, 4]]]
    combined = Entry("both", AttributionConfig(("gradient", "grad_cam")))
    assert combined.channels == "sum", "what is multiplied has one channel already"


def test_the_gradient_of_a_linear_model_does_not_change(linear: EvaluatedModel, one: Case) -> None:
    found = sensitivity_of(entry("gradient"), linear, one)
    assert found.values == {Row("pixels", "gradient", "max-sensitivity"): pytest.approx(0, abs=1e-6)}
    moved = sensitivity_of(Entry("edges"), linear, one)
    assert moved.values[Row("pixels", "edges", "max-sensitivity")] > 0


def test_the_truth_scores_best(linear: EvaluatedModel, one: Case) -> None:
    """A linear model that reads the deciding object alone, of which input × gradient is the exact effect."""
    weights = linear.network.get_parameter("1.weight").zero_()
    weights[one.label] = (one.deciding * one.image.sign()).flatten()
    found = scores_of_case(linear, [entry("input_x_gradient")], one).values
    assert found[Row("pixels", "input_x_gradient", "pointing game")] == 1 and found[
        Row("pixels", "input_x_gradient", "relevance mass accuracy")
    ] == pytest.approx(1)
    assert found[Row("pixels", "input_x_gradient", "normalized infidelity")] == pytest.approx(0, abs=1e-8)
    assert (
        found[Row("pixels", "input_x_gradient", "insertion AUC")]
        > found[Row("pixels", "input_x_gradient", "deletion AUC")]
    )


METHODS = ["deep_lift", "expected_gradients", "grad_cam", "gradient", "integrated_gradients", "kernel_shap"]


@pytest.fixture(scope="module")
def results(one_thread: None) -> dict:
    subjects, entries = [convolutional_subject()], entries_of(METHODS)
    return evaluate_methods.evaluate(subjects, entries, SEED, DRAWN, FEW, randomized=2, noisy=1, workers=1)


def test_structure(results: dict) -> None:
    toy = results["models"]["toy"]
    assert (toy["drawn"], toy["right"]) == (DRAWN, 2) and toy["not_supported"] == {} and toy["refused"] == {}
    names = {one.name for one in entries_of(METHODS)}
    assert set(toy["metrics"]) == set(toy["plans"]) == names
    for name in names - {"random"}:
        assert toy["metrics"][name]["max-sensitivity"]["scenes"] == 1
        assert toy["metrics"][name]["IoU"]["scenes"] == 2
    assert "max-sensitivity" not in toy["metrics"]["random"]
    assert toy["plans"]["grad_cam"]["layer"] == "4" and toy["plans"]["kernel_shap"]["options"]["samples"] == 256
    json.dumps(results, allow_nan=False)


def test_another_process_finds_the_same(one: Case, linear: EvaluatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does, without the seconds that starting it takes."""
    monkeypatch.setattr(parallel, "_study", None)
    study = study_of(entries_of(["gradient"]), linear, one, randomized=1, noisy=1)
    parallel._begin(pickle.dumps(study))
    alone, there = parallel.run(study), [parallel._score(part) for part in study.parts]
    assert len(alone) == len(there) == 1 + 2, "the scores of all, and the sensitivity of each but chance"
    for first, second in zip(alone, there, strict=True):
        assert first.values.keys() == second.values.keys()
        assert all(value == second.values[row] for row, value in first.values.items() if row.metric != "CPU time")


def test_controls(results: dict) -> None:
    toy = results["models"]["toy"]
    assert toy["metrics"]["edges"]["parameter randomization"]["mean"] == pytest.approx(1) and "edges" in toy["fails"]
    assert toy["metrics"]["random"]["parameter randomization"]["mean"] < 0.1 and "random" not in toy["fails"]
    assert toy["metrics"]["edges"]["forward evaluations"]["mean"] == 0


def test_tables(results: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = with_some_left_out(results)
    text = "\n".join(markdown(shown))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1 and len(rows) == 2 + len(entries_of(METHODS))
    assert any(row.startswith("| edges † |") for row in rows)
    assert "- guided_backprop: model: no ReLU" in text and "- deep_lift, 1: model: misses" in text
    file = tmp_path / "results.json"
    assert evaluate_methods.main(["--print", "--out", str(file)]) == 1
    assert "out: wanted a file of results" in capsys.readouterr().err
    file.write_text(json.dumps(shown))
    assert evaluate_methods.main(["--print", "--out", str(file)]) == 0
    assert text in capsys.readouterr().out


def test_results_of_other_models_are_kept_if_they_can_be_compared(results: dict, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    wanted = {part: results[part] for part in ("settings", "machine", "versions")}
    assert evaluate_methods.earlier(file, wanted) == {}
    file.write_text(json.dumps(results))
    assert evaluate_methods.earlier(file, wanted).keys() == {"toy"}
    other = wanted | {"versions": {"torch": "1.0"}}
    with pytest.raises(ValueError, match="keep: wanted a file of the same versions"):
        evaluate_methods.earlier(file, other)


def test_methods_are_added_to_the_results_of_a_model(results: dict) -> None:
    own = results["models"]["toy"]
    name = next(entry for entry in own["plans"] if entry not in CONTROLS)

    def without(part: str) -> dict:
        return {entry: value for entry, value in own[part].items() if entry != name}

    fails = [entry for entry in own["fails"] if entry != name]
    before = {**own, "plans": without("plans"), "metrics": without("metrics"), "fails": fails}
    before = {**results, "models": {"toy": before}}
    found = {**results, "machine": {"cpu": "another"}}
    toy = evaluate_methods.added(before, found)["models"]["toy"]
    assert toy["metrics"] == own["metrics"] and toy["plans"] == own["plans"] and set(toy["fails"]) == set(own["fails"])
    assert toy["added"][name] == {"cpu": "another"} and evaluate_methods.added(before, found)["machine"] != toy["added"]
    with pytest.raises(ValueError, match="add: wanted a file of the same settings"):
        evaluate_methods.added({**before, "settings": {}}, found)
    with pytest.raises(ValueError, match="add: wanted a file with toy, got one with other"):
        evaluate_methods.added({**before, "models": {"other": own}}, found)
    changed = {**own, "metrics": {**own["metrics"], "random": {"IoU": {"mean": 2}}}}
    with pytest.raises(ValueError, match="add: wanted the file's scores of random by toy"):
        evaluate_methods.added(before, {**found, "models": {"toy": changed}})


def with_some_left_out(results: dict) -> dict:
    toy = results["models"]["toy"] | {
        "not_supported": {"guided_backprop": "model: no ReLU"},
        "refused": {"deep_lift": {"images": 1, "reason": "model: misses"}},
    }
    return results | {"models": {"toy": toy}}


def test_a_model_that_is_never_right(linear: EvaluatedModel) -> None:
    linear.network.get_parameter("1.bias")[:] = torch.nan
    with pytest.raises(ValueError, match="images: wanted some that toy classifies rightly, got none of 1"):
        evaluate_methods.draw(linear, SEED, 1)


def test_the_network_as_it_was_built() -> None:
    (bit,) = as_built(evaluate_methods.ROOT / "archive_specs", ["bit"])
    right, others = evaluate_methods.draw(bit, 1_000_003, 1)
    assert len(right) == 1 and others.shape == (evaluate_methods.REFERENCES, 3, 32, 32)
    assert not bit.network.training and not any(weights.requires_grad for weights in bit.network.parameters())


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    for other in ("alexnet", "imagenet"):  # the latter knows no scenes
        assert evaluate_methods.main(["--models", other]) == 1
        assert "models: wanted some of bit, lanet, resnet, swin_classifier, vit, got" in capsys.readouterr().err
    assert evaluate_methods.main(["--models", "bit", "--methods", "gradcam"]) == 1
    assert "methods: wanted some of" in capsys.readouterr().err
