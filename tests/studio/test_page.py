"""The studio in Chromium, before a service that can be slow, busy and strict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, expect

from handlers.classifier import ClassifierHandler
from imagexplain.api.openapi import document
from imagexplain.archive.spec import SPEC_FILE, ClassifierSpec
from imagexplain.attribution.registry import METHODS
from imagexplain.serving.interface import interface_of
from tests.serving.asking import coarse_png
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import CIFAR_LABELS, write_bit
from tests.studio.fake_service import KEY, FakeService, Mood
from tests.studio.studio_page import LAPTOP, PHONE, Studio, studio

PHOTO = coarse_png(height=90, width=120)


@pytest.fixture(scope="module")
def fake_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeService]:
    """A small seeded classifier behind a server."""
    folder = write_bit(tmp_path_factory.mktemp("bit"))
    handler = ClassifierHandler()
    handler.initialize(Context(model_dir=folder))
    spec = ClassifierSpec.model_validate_json((folder / SPEC_FILE).read_text())
    served = FakeService({"bit": handler}, document([interface_of(spec, "bit", tuple(sorted(METHODS)))]))
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def fake(fake_service: FakeService) -> FakeService:
    """The server in its usual mood."""
    fake_service.mood = Mood()
    fake_service.seen.clear()
    return fake_service


@pytest.fixture
def page(browser: Browser, fake: FakeService) -> Iterator[Studio]:
    """The page on a laptop."""
    with studio(browser, fake.address) as shown:
        yield shown


@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)])
def test_every_state_is_accessible_and_as_wide_as_its_window(
    browser: Browser, fake: FakeService, scheme: str, size: tuple[int, int]
) -> None:
    with studio(browser, fake.address, size, color_scheme=scheme) as shown:
        expect(shown.page.get_by_label("Model", exact=True)).to_have_value("bit")
        shown.check()
        shown.give(PHOTO)
        shown.explain()
        shown.check()
        shown.page.get_by_role("checkbox", name=re.compile("^slic 1 on")).uncheck()
        expect(shown.page.locator(".scores")).to_contain_text("The table foretold")
        shown.check()
        for tab in ("Convergence", "Keep"):
            shown.page.get_by_role("tab", name=tab).click()
        shown.page.get_by_role("radio", name="Heat map").check()
        shown.check()
        shown.page.get_by_role("radio", name="Painted").check()
        shown.check()
        fake.mood.refusal = refused(503, "segments", "busy")
        shown.settings.get_by_role("button", name="Explain").click()
        expect(shown.page.get_by_role("alert")).to_be_visible()
        shown.check()
        shown.page.get_by_role("button", name="Compare").click()
        shown.check()


def refused(status: int, field: str, message: str, **headers: str) -> tuple[int, dict[str, str], dict[str, object]]:
    """A refusal of the service."""
    return status, headers, {"code": status, "error": "refused", "field": field, "message": message}


def test_the_key_is_kept_for_the_tab_and_leaves_the_address(browser: Browser, fake: FakeService) -> None:
    with studio(browser, fake.address) as shown:
        expect(shown.page.get_by_role("button", name="Key given")).to_be_visible()
        assert "#" not in shown.page.url
        assert KEY not in shown.page.evaluate("JSON.stringify([history.state, {...localStorage}, document.cookie])")
        assert shown.page.evaluate("sessionStorage.getItem('imagexplain.key')") == KEY


def test_a_person_without_a_key_is_asked_for_it(browser: Browser, fake: FakeService) -> None:
    with studio(browser, fake.address.split("#")[0]) as shown:
        shown.page.get_by_role("alert").get_by_role("button", name="Enter the key").click()
        shown.check()
        shown.page.get_by_label("Key", exact=True).fill(KEY)
        shown.page.get_by_role("button", name="Use it").click()
        expect(shown.page.get_by_role("alert")).to_have_count(0)
        shown.give(PHOTO)


def test_a_wrong_key_is_refused_in_the_services_words(browser: Browser, fake: FakeService) -> None:
    with studio(browser, fake.address + "x") as shown:
        shown.choose_file(PHOTO)
        expect(shown.page.get_by_role("alert")).to_contain_text("wanted the key in Authorization: Bearer")


def test_a_slow_answer_is_stopped(page: Studio, fake: FakeService) -> None:
    page.give(PHOTO)
    fake.mood.seconds = 3
    page.settings.get_by_role("button", name="Explain").click()
    expect(page.page.locator(".run-words").filter(visible=True)).to_have_text(re.compile(r"Explaining … 0\.[2-9] s"))
    page.page.get_by_role("button", name="Stop").click()
    expect(page.said).to_have_text("Stopped.")
    expect(page.answer).to_have_count(0)
    expect(page.page.get_by_role("alert")).to_have_count(0)


def test_a_refusal_leads_to_its_field(page: Studio) -> None:
    page.give(PHOTO)
    page.settings.get_by_label("Steps").fill("5000")
    page.settings.get_by_role("button", name="Explain").click()
    alert = page.page.get_by_role("alert")
    expect(alert).to_contain_text("steps: wanted a whole number in 1..1000, got 5000")
    expect(page.settings.get_by_label("Steps")).to_have_attribute("aria-invalid", "true")
    alert.get_by_role("button", name="Go to steps").click()
    expect(page.settings.get_by_label("Steps")).to_be_focused()
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type("20")
    page.explain()
    expect(alert).to_have_count(0)


def test_a_busy_service_is_asked_again(page: Studio, fake: FakeService) -> None:
    page.give(PHOTO)
    fake.mood.refusal = refused(503, "server", "all workers are busy", **{"Retry-After": "5"})
    page.settings.get_by_role("button", name="Explain").click()
    alert = page.page.get_by_role("alert")
    expect(alert).to_contain_text("all workers are busy")
    expect(alert).to_contain_text("The service asks to wait 5 s.")
    fake.mood.refusal = None
    alert.get_by_role("button", name="Try again").click()
    expect(page.answer).to_have_text(re.compile("|".join(CIFAR_LABELS)))


def test_an_explanation_by_keyboard_alone(browser: Browser, fake: FakeService) -> None:
    with studio(browser, fake.address) as shown:
        shown.give(PHOTO)  # the browser's own dialogue of files
        keyboard = shown.page.keyboard

        def reach(selector: str, most: int = 60) -> None:
            for _ in range(most):
                if shown.page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                    return
                keyboard.press("Tab")
            raise AssertionError(f"the tabulator does not reach {selector}")

        reach("fieldset.top input")
        keyboard.press("ArrowDown")
        second = shown.page.locator("fieldset.top input").nth(1)
        expect(second).to_be_checked()
        reach("input[role=combobox][data-field=contrast_class]")
        keyboard.type("tru")
        keyboard.press("ArrowDown")
        keyboard.press("Enter")
        reach("button[type=submit]")
        keyboard.press("Enter")
        expect(shown.said).to_contain_text("Explained in", timeout=15_000)
        expect(shown.answer).to_contain_text("rather than truck")
        reach("path[role=switch]")
        names = set()
        for key in ("Home", "ArrowLeft", "ArrowRight", "ArrowDown", "ArrowUp", "End"):
            keyboard.press(key)
            names.add(shown.page.evaluate("document.activeElement.getAttribute('aria-label')"))
        assert len(names) > 2
        assert all(re.search(r"supports|opposes", name) for name in names)
        keyboard.press("Space")
        assert shown.page.evaluate("document.activeElement.getAttribute('aria-checked')") == "false"
        expect(shown.page.locator(".scores")).to_contain_text("the model says")
        reach("[role=tab]")
        keyboard.press("ArrowRight")
        expect(shown.page.get_by_role("button", name="Measure")).to_be_visible()


def test_painted_segments_are_scored(page: Studio) -> None:
    page.give(PHOTO)
    page.page.get_by_role("radio", name="Painted").check()
    box = page.page.locator(".canvas").bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 150, box["y"] + 120, steps=5)
    page.page.mouse.up()
    page.settings.get_by_role("button", name="New segment").click()
    page.settings.get_by_label("Label of painted segment 2").fill("a corner")
    page.settings.get_by_role("button", name="Rectangle by keys").click()
    page.page.keyboard.press("Shift+ArrowLeft")
    page.page.keyboard.press("ArrowRight")
    expect(page.said).to_have_text("Rectangle, left 32, top 30, width 38, height 40 percent")
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("Escape")
    page.explain()
    assert sorted(page.page.locator("tbody th.label").all_inner_texts()) == ["a corner", "painted 1", "rest"]
    expect(page.shapes).to_have_count(3)


def test_photos_are_pasted_and_dropped(page: Studio) -> None:
    event = (
        "([kind, target, bytes]) => { const files = new DataTransfer();"
        " files.items.add(new File([new Uint8Array(bytes)], 'given.png', {type: 'image/png'}));"
        " const init = {bubbles: true, cancelable: true, [kind === 'drop' ? 'dataTransfer' : 'clipboardData']: files};"
        " const made = kind === 'drop' ? new DragEvent(kind, init) : new ClipboardEvent(kind, init);"
        " document.querySelector(target).dispatchEvent(made); }"
    )
    page.page.evaluate(event, ["drop", ".stage", list(PHOTO)])
    expect(page.settings).to_contain_text("given.png, 120 × 90")
    page.page.evaluate(event, ["paste", "body", list(coarse_png(1, height=60, width=70))])
    expect(page.settings).to_contain_text("pasted.png, 70 × 60")


def test_a_photo_from_the_camera(page: Studio) -> None:
    page.page.evaluate(
        "() => { const canvas = document.createElement('canvas'); [canvas.width, canvas.height] = [64, 48];"
        " canvas.getContext('2d').fillRect(0, 0, 9, 9); const stream = canvas.captureStream(30);"
        " navigator.mediaDevices.getUserMedia = async () => stream;"
        " setInterval(() => canvas.getContext('2d').fillRect(0, 0, 9 * Math.random(), 9), 30); }"
    )
    page.settings.get_by_role("button", name="Camera").click()
    page.check()
    page.page.get_by_role("button", name="Take the photo").click()
    expect(page.settings).to_contain_text("camera.jpg, 64 × 48")


def test_options_come_from_the_document(page: Studio, fake: FakeService) -> None:
    page.give(PHOTO)
    page.choose("Baseline", "blur")
    page.settings.get_by_label("Blur").fill("0.2")
    expect(page.settings.get_by_label("Draws")).to_be_hidden()
    page.explain()
    sent = [one.headers["X-Explain-Options"] for one in fake.seen if one.path == "/explanations/bit"]
    wanted = {"baseline": ["blur"], "blur": ["0.2"], "segments": ["slic"], "n_segments": ["20"]}
    assert parse_qs(sent[-1]) == wanted | {"outputs": ["photo_masks"]}
    expect(page.page.locator(".facts")).to_contain_text("from blur")
    page.choose("Method", "rise")
    expect(page.page.get_by_text("The settings have changed since this answer.")).to_be_visible()
    expect(page.settings.locator("[data-field=samples]")).to_have_attribute("placeholder", "4000")
    expect(page.settings.get_by_label("Steps")).to_have_count(0)


def test_two_answers_side_by_side(page: Studio) -> None:
    page.give(PHOTO)
    page.settings.get_by_label("Steps").fill("10")
    page.explain()
    page.page.get_by_role("button", name="Compare").click()
    expect(page.settings.get_by_label("The photo of A")).to_be_checked()
    expect(page.settings.get_by_role("radio", name=re.compile("%"))).to_have_count(5)
    expect(page.settings.get_by_label("Steps")).to_have_value("10")
    page.choose("Method", "input_x_gradient")
    page.explain()
    expect(page.answer).to_have_count(2)
    expect(page.page.locator(".comparison")).to_contain_text("method integrated gradients / input x gradient")
    expect(page.page.locator(".comparison")).to_contain_text("Attributions of the segments correlate by")
    page.check()


def test_convergence_is_measured_and_can_be_stopped(page: Studio) -> None:
    page.give(PHOTO)
    page.explain()
    page.page.get_by_role("tab", name="Convergence").click()
    page.page.get_by_role("button", name="Measure").click()
    expect(page.page.locator(".convergence tbody tr")).to_have_count(6, timeout=15_000)
    page.check()


def test_the_table_is_sorted_and_linked_to_the_photo(page: Studio) -> None:
    page.give(PHOTO)
    page.explain()
    header = page.page.get_by_role("columnheader", name="Attribution")
    expect(header).to_have_attribute("aria-sort", "descending")

    def column() -> list[float]:
        cells = page.page.locator("td.attribution").all_inner_texts()
        return [float(text.replace("−", "-")) for text in cells]

    assert column() == sorted(column(), reverse=True)
    header.get_by_role("button").click()
    assert column() == sorted(column())
    row = page.page.locator("tbody tr").first
    row.hover()
    index = row.get_attribute("data-group")
    expect(page.page.locator("path.pointed")).to_have_attribute("data-group", str(index))
    expect(page.page.locator(".readout")).to_contain_text(row.locator("th").inner_text())


def test_the_lines_reproduce_the_answer(page: Studio) -> None:
    page.give(PHOTO, "my photo.png")
    page.explain()
    page.page.get_by_role("tab", name="Keep").click()
    lines = page.page.locator("pre").all_inner_texts()
    assert "segments=slic&n_segments=20" in lines[0]
    assert "'@my photo.png'" in lines[0]
    assert "client.explain(" in lines[1]
    assert KEY not in "".join(lines)


def test_answers_are_saved(page: Studio, tmp_path: Path) -> None:
    page.give(PHOTO)
    page.explain()
    page.page.get_by_role("tab", name="Keep").click()
    for form, suffix, start in [
        ("gzip", "gzip", b"\x1f\x8b"),
        ("safetensors", "safetensors", b""),
        ("JSON", "json", b"{"),
        ("PNG", "png", b"\x89PNG"),
    ]:
        with page.page.expect_download() as waited:
            page.page.get_by_role("button", name=form).click()
        assert waited.value.suggested_filename == f"photo_bit.{suffix}"
        waited.value.save_as(tmp_path / suffix)
        assert (tmp_path / suffix).read_bytes().startswith(start)
    assert len(json.loads((tmp_path / "json").read_bytes())["groups"]) == page.shapes.count() + 1


def test_the_scheme_is_switched(page: Studio) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.page.evaluate(ground)
    page.page.get_by_label("Colours of the page").select_option("dark")
    assert page.page.evaluate(ground) != light
