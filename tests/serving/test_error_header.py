"""An error's JSON in a header, by which a proxy tells it from TorchServe's own."""

from __future__ import annotations

import json

import pytest

from handlers.classifier import ClassifierHandler
from imagexplain.serving.headers import ERROR_HEADER
from tests.serving.asking import ask, explanation, noise_png, prediction


@pytest.mark.parametrize("options", ["steps=0", "target_class=звезда%0D%0A", "method=none"])
def test_an_error_stands_in_a_header_in_one_line_of_ascii(handler: ClassifierHandler, options: str) -> None:
    (refused, answered), context = ask(
        handler, (explanation(options), noise_png()), (prediction("application/json"), noise_png())
    )
    header = context.answered[0][ERROR_HEADER]
    assert header.isascii() and header.isprintable()
    assert json.loads(header) == json.loads(refused) and context.statuses[0] >= 400
    assert json.loads(answered) and ERROR_HEADER not in context.answered.get(1, {})
