"""Docstrings as the site's reader of them wants them: this repository's ``Example:`` is its ``Examples:``."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Extension of griffe that lets examples be shown as code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
