"""The demonstration's `places` over real HTTP: every method of the service explains it, or says why not."""

from __future__ import annotations

import pytest
from PIL import Image

from imagexplain import attribution as library
from tests.conftest import Served
from tests.serving.over_http import post
from tests.tensors import unpacked
from tests.wire.photos import encoded
from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, shortcut_scene

QUICK = {
    "expected_gradients": "samples=10",
    "kernel_shap": "samples=50",
    "lime": "samples=50",
    "rise": "samples=50",
    "ss_cam": "samples=1",
}
FOR_CNNS = {"deep_lift", "full_grad", "guided_backprop", "guided_grad_cam", "lrp"}


@pytest.fixture(scope="module")
def photo() -> bytes:
    return encoded(Image.fromarray(shortcut_scene(5, 1, 1.0, SceneSettings(size=(64, 64))).scene.image))


@pytest.mark.parametrize("method", sorted(library.METHODS))
def test_every_method_explains_it_or_has_no_meaning_for_a_transformer(
    served: Served, photo: bytes, method: str
) -> None:
    options = f"method={method}&segments=slic&n_segments=9" + (f"&{QUICK[method]}" if method in QUICK else "")
    answer = post(served, "explanations/places", photo, X_Explain_Options=options)
    if method in FOR_CNNS:
        assert answer.status_code == 422 and f"{method} is not supported" in answer.json()["message"]
        return
    assert answer.status_code == 200, answer.text
    result = unpacked(answer.content)
    assert 0 <= result["target_class"] < len(LABELS) and result["finite"]
    assert result["integrated_grads" if method == "integrated_gradients" else "map"].shape[-2:] == (64, 64)
    assert len(result["labels"]) > 3
