"""The studio before the demonstration models as they are served: a person's way from a photo to a score recomputed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from playwright.sync_api import Browser, expect

from imagexplain.cli.studio import document_of
from imagexplain.ops.studio import Settings, StudioServer, serving
from tests.conftest import Served
from tests.serving.over_http import post, segmenter_scene
from tests.studio.browser import STUDIO
from tests.studio.studio_page import PHONE, Studio, studio

SCENE, _ = segmenter_scene(0)


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[StudioServer]:
    """The studio's small server before the served archives."""
    with serving(Settings(STUDIO, Path(served.server.run), document_of)) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: StudioServer) -> Iterator[Studio]:
    """served: the page on a laptop, with a scene for a ResNet."""
    with studio(browser, server.address) as shown:
        shown.choose("Model", "resnet")
        shown.give(SCENE, "scene.png")
        yield shown


def test_a_segment_switched_off_has_the_services_own_score(page: Studio, served: Served) -> None:
    """served: clicks on a segment, and asks the service itself for the same."""
    page.explain()
    said = post(
        served,
        "explanations/resnet",
        SCENE,
        Accept="application/json",
        X_Explain_Options="segments=slic&n_segments=20&outputs=photo_masks",
    ).json()
    rows = said["groups"]
    assert page.shapes.count() == len(rows) - 1
    strongest = max(range(len(rows) - 1), key=lambda row: rows[row]["attribution"])
    shape = page.page.locator(f"path[data-group='{strongest}']")
    expect(shape).to_have_attribute(
        "aria-label", re.compile(f"^{rows[strongest]['label']} supports {said['target_label']}")
    )
    shape.dispatch_event("click")
    scores = page.page.locator(".scores")
    expect(scores).to_contain_text("The table foretold")
    answer = post(
        served,
        "predictions/resnet",
        SCENE,
        Accept="application/x-safetensors",
        X_Explain_Options=f"segments=slic&n_segments=20&absent={strongest}",
    )
    output = safetensors.numpy.load(answer.content)["output"]
    shown = float(scores.get_attribute("data-asked") or "nan")
    np.testing.assert_allclose(shown, output[0, said["target_class"]], rtol=1e-5)
    assert shown != pytest.approx(said["score"], rel=1e-3)
    foretold = said["score"] - rows[strongest]["attribution"]
    expect(scores).to_contain_text(f"{foretold:.3g}".replace("-", "−"))


def test_shapley_values_have_their_errors(page: Studio) -> None:
    page.choose("Method", "gaussian_shap")
    page.explain()
    told = page.page.locator("tbody td.attribution").all_inner_texts()
    assert len(told) > 10 and all(re.fullmatch(r"[+−]?[\d.e−]+ ± [\d.e−]+", one) for one in told), told


def test_segments_that_a_segmenter_finds(page: Studio) -> None:
    page.settings.get_by_role("radio", name="Found").check()
    page.settings.get_by_label("Segmenter").select_option("swin")
    page.explain()
    labels = page.page.locator("tbody th.label").all_inner_texts()
    assert "rest" in labels
    assert page.shapes.count() == len(labels) > 1


def test_a_segmenters_instance_is_explained(page: Studio) -> None:
    page.choose("Model", "tensormask")
    expect(page.settings.get_by_role("radio", name=re.compile("%")).first).to_be_checked()
    page.settings.get_by_role("radio", name="Grid").check()
    page.explain()
    expect(page.page.locator(".absence-words")).to_have_text("Segments can be switched off for classifiers alone.")
    assert page.shapes.count() == 16


def test_two_models_side_by_side_on_a_phone(browser: Browser, server: StudioServer) -> None:
    with studio(browser, server.address, PHONE, color_scheme="dark") as shown:
        expect(shown.page.get_by_label("Model", exact=True)).to_have_value("imagenet")
        shown.choose("Model", "bit")
        shown.give(SCENE, "scene.png")
        shown.explain()
        shown.page.get_by_role("button", name="Compare").click()
        shown.choose("Model", "vit")
        expect(shown.settings.get_by_role("radio", name=re.compile("%"))).to_have_count(5)
        shown.explain()
        expect(shown.page.locator(".comparison")).to_contain_text("model bit / vit")
        shown.check()


def test_a_saved_summary_is_the_services(page: Studio, tmp_path: Path) -> None:
    rather_than = page.settings.get_by_role("combobox", name="Rather than")
    rather_than.fill("ring")
    rather_than.press("Enter")
    page.explain()
    page.page.get_by_role("tab", name="Keep").click()
    with page.page.expect_download() as waited:
        page.page.get_by_role("button", name="JSON").click()
    waited.value.save_as(tmp_path / "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["contrast_label"] == "ring"
    expect(page.answer).to_have_text(f"{summary['target_label']} rather than ring")
    assert waited.value.suggested_filename == "scene_resnet.json"
