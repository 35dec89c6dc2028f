"""The evaluation on photographs, on a network that knows colours and photos of one colour."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from evaluation import evaluate_photos, photo_tables
from evaluation.entries import entries_of
from evaluation.evaluate_photos import QUICK, affordable, entries_at, evaluate, options
from evaluation.evaluated_model import EvaluatedModel
from evaluation.harness import Result, Row
from evaluation.method_study import one_channel
from evaluation.photo_study import by_photo, knowledge
from evaluation.photos import (
    Photograph,
    at_size,
    draw_mosaics,
    known,
    mosaic_cases,
    packaged,
    photo_cases,
    photos_in,
    read,
)
from evaluation.randomization import randomizations, randomize_parameters, stages
from evaluation.remembered import remembered
from evaluation.settings import Settings
from imagexplain.attribution.methods.ablation_cam import ablation_cam
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.errors import ArgumentError
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.superpixels import SlicSettings
from tests.wire.photos import noise_pixels

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}
METHODS = ["ablation_cam", "gradient", "grad_cam", "integrated_gradients", "occlusion", "score_cam"]
FEW = Settings(removals=4, noisy=1, draws=2)


class Colours(nn.Module):
    """Scores of four colours: of each pixel a ReLU of its likeness to the colour, the mean over all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.likeness = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 4)
        with torch.no_grad():
            wanted = 2.0 * torch.tensor(list(COLOURS.values())) - 1
            self.likeness.weight[:] = wanted[:, :, None, None]
            self.likeness.get_parameter("bias")[:] = -2
            self.head.weight[:] = 9 * torch.eye(4)
            self.head.bias[:] = 0

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.likeness(images).relu().mean((2, 3)))


@pytest.fixture
def model() -> EvaluatedModel:
    preprocess = Preprocess(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="crop")
    network = Colours().eval().requires_grad_(False)
    return EvaluatedModel("colours", network, preprocess, quadrature("gauss_legendre", 2), "black")


def plain(colour: str, size: tuple[int, int] = (24, 20)) -> Photograph:
    return Photograph(f"{colour}.png", Image.new("RGB", size, tuple(255 * value for value in COLOURS[colour])))


def photos() -> list[Photograph]:
    return [*map(plain, COLOURS), Photograph("grey.png", Image.new("RGB", (16, 16), (128, 128, 128)))]


def test_photos_that_the_network_knows(model: EvaluatedModel) -> None:
    again = Photograph("red again.png", Image.new("RGB", (16, 16), (250, 10, 10)))
    sure = known(model, [again, *photos()], 0.9)
    assert {one.photograph.name for one in sure} == {f"{colour}.png" for colour in COLOURS}, "the surest of each class"
    assert [one.probability for one in sure] == sorted((one.probability for one in sure), reverse=True)
    assert len(known(model, photos(), 0.2)) == 4 and known(model, photos(), 1.1) == []


def test_mosaics_take_all_photos_in_turn() -> None:
    drawn = draw_mosaics(9, 2, 4, seed=0)
    assert drawn == draw_mosaics(9, 2, 4, seed=0) != draw_mosaics(9, 2, 4, seed=1)
    assert all(len(set(one)) == 4 for one in drawn) and not set(drawn[0]) & set(drawn[1])
    assert sorted(draw_mosaics(9, 3, 1, seed=0)[0]) == list(range(9))


def test_too_few_photos(model: EvaluatedModel) -> None:
    with pytest.raises(ArgumentError, match="photos: wanted 4 of different classes for a 2×2 mosaic, got 3") as error:
        evaluate(model, photos()[:3], ["gradient"], QUICK, FEW, labels=list(COLOURS))
    assert error.value.field == "photos"
    with pytest.raises(ArgumentError, match="mosaics: wanted at least one of 2×2"):
        evaluate(model, photos(), ["gradient"], replace(QUICK, mosaics={3: 1}), FEW, labels=list(COLOURS))


def test_a_mosaic_is_a_case_of_each_class(model: EvaluatedModel) -> None:
    large, sure = at_size(model, (32, 32)), known(model, photos(), 0.5)
    cases = mosaic_cases(large, sure, (2, 0, 3, 1), 2, SlicSettings(4))
    assert [case.label for case in cases] == [sure[number].label for number in (2, 0, 3, 1)]
    for tile, case in enumerate(cases):
        row, column = divmod(tile, 2)
        mine = torch.zeros(32, 32, dtype=torch.bool)
        mine[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = True
        assert torch.equal(case.deciding, mine)
        colour = torch.tensor(list(COLOURS.values())[case.label])
        assert torch.equal(case.photo[:, mine], colour[:, None].expand(3, 256).float())
        assert torch.equal(case.image, 2 * case.photo - 1)
        assert set(case.partitions["superpixels"].inside.tolist()) == {0.0, 1.0}, "no superpixel crosses a border"
    assert knowledge(large, cases, 2) == [
        {"probability": pytest.approx(0.25), "rank": pytest.approx(1, abs=3), "decides": 1.0} for _ in cases
    ]


def test_a_photo_is_a_case_without_truth(model: EvaluatedModel) -> None:
    (case,) = photo_cases(model, known(model, photos()[:1], 0.5), SlicSettings(4))
    assert case.deciding.all() and case.label == 0 and case.image.shape == (3, 16, 16)


def test_a_network_for_one_size(model: EvaluatedModel) -> None:
    fixed = replace(model, network=nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)).eval())
    assert at_size(fixed, (16, 16)).preprocess.size == (16, 16)
    with pytest.raises(ArgumentError, match="mosaic_size: wanted a size that colours takes, such as its own 16×16"):
        at_size(fixed, (32, 32))


def test_scores_are_remembered_but_for_those_of_other_networks(model: EvaluatedModel) -> None:
    calls: list[int] = []
    network = model.network
    hook = network.likeness.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))  # type: ignore[union-attr]
    images = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        wanted = network(images)
        map_ = ablation_cam(network, images[:1], [0])
        calls.clear()
        with remembered(network, 2):
            assert torch.equal(network(images), wanted) and calls == [2, 2, 1]
            assert torch.equal(network(images.flip(0)), wanted.flip(0)) and calls == [2, 2, 1]
            assert torch.equal(ablation_cam(network, images[:1], [0]), map_), "layers' outputs are replaced in it"
        assert "forward" not in vars(network)
    hook.remove()


def test_means_are_taken_photo_by_photo() -> None:
    """Photo 0 is in both mosaics and photo 1 in one: (1 + 3) / 2 and 5."""
    first = Result({Row("0", "m", "share"): 1.0, Row("1", "m", "share"): 5.0})
    found = by_photo([first, Result({Row("0", "m", "share"): 3.0})])
    assert [result.values[Row("pixels", "m", "share")] for result in found] == [2, 5]


def test_stages_of_randomization() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    network = network.eval().requires_grad_(False)
    assert stages(network, 2) == [["0", "1"], ["3", "4"]] and stages(network, 9) == [["0"], ["1"], ["3"], ["4"]]
    images = torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    nn.init.uniform_(network[1].weight)  # type: ignore[arg-type]
    tests = list(randomizations(network, 2, 0, images))
    assert [metric for metric, _ in tests] == ["cascading randomization"] * 2 + ["randomization by layer"] * 2

    def changed(other: nn.Module) -> set[str]:
        mine, theirs = network.state_dict(), other.state_dict()
        return {name for name, value in mine.items() if not torch.equal(value, theirs[name])}

    late = {"3.weight", "3.bias", "4.running_mean", "4.running_var", "4.num_batches_tracked"}
    early = {"0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed(tests[0][1]) == late, "the batch norm before keeps its statistics"
    assert changed(tests[1][1]) == late | early
    assert changed(tests[3][1]) == late and changed(tests[2][1]) == early | {name for name in late if name[0] == "4"}
    whole = randomize_parameters(network, 0, images)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), tests[1][1].parameters(), strict=True))


@pytest.fixture(scope="module")
def results(one_thread: None) -> dict:
    preprocess = Preprocess(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="crop")
    network = Colours().eval().requires_grad_(False)
    model = EvaluatedModel("colours", network, preprocess, quadrature("gauss_legendre", 2), "black")
    settings = replace(QUICK, mosaics={2: 2}, tile=16, photos=2)
    noisy = [
        Photograph(photo.name, Image.blend(photo.image, Image.fromarray(noise_pixels(20, 24)), 0.1))
        for photo in photos()[:4]
    ]
    return evaluate(model, [*noisy, photos()[4]], METHODS, settings, FEW, labels=list(COLOURS))


def test_the_tile_of_a_colour_is_found(results: dict) -> None:
    grid = results["grids"]["2"]
    assert grid["mosaics"] == [list(one) for one in draw_mosaics(4, 2, 2, 0)] and grid["photos"] == 4
    found = {name: values["grid pointing game"]["mean"] for name, values in grid["metrics"].items()}
    assert found["grad_cam"] > 0.95 and found["gradient"] > 0.95
    assert found["occlusion"] > 0.8, "windows reach over borders"
    assert found["edges"] == pytest.approx(0.25), "what ignores the class has the share of the area"
    assert found["random"] == pytest.approx(0.25, abs=0.02)
    assert grid["metrics"]["grad_cam"]["grid pointing game"]["scenes"] == 4, "intervals over photos, not mosaics"


def test_segments_by_baseline(results: dict) -> None:
    found = results["segments"]["metrics"]
    for baseline in ("zero", "black", "mean", "blur", "uniform"):
        assert found[f"leave-one-out, {baseline}"]["pointing game"]["mean"] == 1
        assert found[f"Δ², {baseline}"]["relevance mass accuracy"]["mean"] == pytest.approx(0.25, abs=0.01)
    assert found["area"]["relevance mass accuracy"]["mean"] == pytest.approx(0.25, abs=0.01)


def test_structure(results: dict) -> None:
    assert (results["seen"], len(results["photos"])) == (5, 4)
    alone = results["on_photos"]
    assert (alone["scored"], alone["randomized"], alone["noisy"]) == (2, 1, 1)
    names = {"SaCo", "insertion AUC by pixel", "deletion AUC", "normalized infidelity", "max-sensitivity"}
    assert names <= set(alone["metrics"]["integrated_gradients"])
    names |= {"cascading randomization", "randomization by layer", "parameter randomization of magnitudes"}
    assert names <= set(alone["metrics"]["edges"])
    assert alone["metrics"]["edges"]["randomization by layer"]["mean"] == pytest.approx(1) and "edges" in alone["fails"]
    json.dumps(results, allow_nan=False)


def test_methods_are_added_to_the_results(results: dict) -> None:
    whole = json.loads(json.dumps(results))
    before = json.loads(json.dumps(results))
    for part in (before["grids"]["2"], before["on_photos"]):
        del part["plans"]["gradient"], part["metrics"]["gradient"]
    before["segments"] = {}
    found = evaluate_photos.added(before, results)
    assert found["segments"] == whole["segments"]
    for one, own in ((found["grids"]["2"], whole["grids"]["2"]), (found["on_photos"], whole["on_photos"])):
        assert one["metrics"] == own["metrics"] and one["plans"] == own["plans"]
        assert one["added"]["gradient"] == whole["machine"]
    with pytest.raises(ValueError, match="add: wanted a file of the same mosaics"):
        evaluate_photos.added({**before, "grids": {"2": {**before["grids"]["2"], "mosaics": []}}}, results)
    before["on_photos"]["metrics"]["edges"]["SaCo"]["mean"] += 1
    with pytest.raises(ValueError, match="add: wanted the file's scores of edges by photos, got others"):
        evaluate_photos.added(before, results)


def test_tables(results: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(photo_tables.markdown(json.loads(json.dumps(results))))
    for heading in (
        "### The photos",
        "### Grid pointing game",
        "### On the photos themselves",
        "### Segments, by baseline",
    ):
        assert heading in text
    assert "4 of 5 photos" in text and "| edges † |" in text
    file = tmp_path / "results.json"
    assert evaluate_photos.main(["--print", "--out", str(file)]) == 1
    assert "out: wanted a file of results" in capsys.readouterr().err
    file.write_text(json.dumps(results))
    assert evaluate_photos.main(["--print", "--out", str(file)]) == 0
    assert text.strip() in capsys.readouterr().out


def test_what_is_more_than_elsewhere_is_centred(model: EvaluatedModel) -> None:
    """RISE's values are all positive; less their mean, those of the class's tile are."""
    kept, _ = entries_at(model, ["rise", "gradient"], QUICK, None)
    assert {entry.name for entry in kept if entry.centred} == {"rise"}
    rise = next(entry for entry in kept if entry.centred)
    assert one_channel(rise, torch.tensor([[[[3.0, 1.0], [1.0, 1.0]]]])).tolist() == [[[1.5, -0.5], [-0.5, -0.5]]]


def test_few_evaluations() -> None:
    names = {entry.name for entry in affordable(entries_of(options=options(10, (672, 672))), (672, 672), 14)}
    assert {"grad_cam", "integrated_gradients", "edges"} <= names and not {"rise", "score_cam", "occlusion"} & names


def test_files(tmp_path: Path) -> None:
    assert {"coffee.png", "chelsea.png", "rocket.jpg"} <= {file.name for file in packaged()}
    assert all(file.exists() for file in packaged())
    with pytest.raises(ArgumentError, match="photos: wanted a folder of photos"):
        photos_in(tmp_path)
    plain("red").image.save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no photo")
    (read_back,) = read(photos_in(tmp_path))
    assert read_back.image.size == (24, 20)
    (tmp_path / "b.jpg").write_text("no photo either")
    with pytest.raises(ArgumentError, match=r"photos: b\.jpg"):
        read(photos_in(tmp_path))


def test_errors_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain("red").image.save(tmp_path / "a.png")
    assert evaluate_photos.main(["--photos", str(tmp_path), "--threshold", "0.99", "--quick"]) == 1
    assert "error: photos: wanted 4 of different classes" in capsys.readouterr().err
