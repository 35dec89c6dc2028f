"""Pages of the library's reference: which public name stands where. Its docstrings are the text."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import get_args

import imagexplain.attribution as library
from imagexplain.attribution.registry import METHODS, Family

CLIENT = "imagexplain.client"

COMMON = {"class activation": "imagexplain.attribution.class_activation_maps"}
"""Modules whose docstring says what the methods of a family have in common."""

PARTS = {
    "Path integrals": (
        "imagexplain.attribution.paths.path_integral.integrate",
        "imagexplain.attribution.paths.path_integral.PathIntegral",
        "imagexplain.attribution.paths.quadrature.quadrature",
        "imagexplain.attribution.paths.quadrature.Quadrature",
    ),
    "Groups": (
        "imagexplain.attribution.groups.families.family",
        "imagexplain.attribution.groups.families.Family",
        "imagexplain.attribution.groups.directional.group_scores",
        "imagexplain.attribution.groups.directional.GroupScores",
    ),
    "Captum's interface": (
        "imagexplain.attribution.captum_adapter.IntegratedGradients",
        "imagexplain.attribution.captum_adapter.IntegratedDirectionalGradients",
    ),
    "Methods of your own": (
        "imagexplain.attribution.registry.register",
        "imagexplain.attribution.registry.Method",
    ),
    "Errors": (
        "imagexplain.errors.ArgumentError",
        "imagexplain.errors.UnsupportedModelError",
        "imagexplain.errors.LayerError",
    ),
}
"""Public names beside methods and what is done with maps, by heading."""

WITH_MEMBERS = {"Captum's interface"}
"""Headings whose classes are shown with their methods."""

_METHODS = """# Methods

Every method is a function of a model, images and the classes to explain; `from imagexplain import NAME` imports it.
[Methods](../methods.md) says what each needs and was compared with, [which method](../which_method.md) which to take.
"""
_TOOLS = """# Paths, groups and maps

What is done with maps, and the parts of which path integrals and tables of groups are made.
[As a library](../library.md) shows them at work.
"""
_CLIENT = """# The client

Names of `imagexplain.client`, which needs no torch.
"""


_ROLE = re.compile(r":(?:class|data|func|meth|mod):<code>~?([\w.]+)</code>")


def linked(html: str) -> str:
    """HTML whose roles, as docstrings have them, are links to the names that stand in the reference."""
    return _ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', html)


def pages() -> dict[str, str]:
    """The pages' text by their place on the site."""
    made = {"reference/methods.md": _methods(), "reference/tools.md": _tools()}
    client = import_module(CLIENT)
    if names := getattr(client, "__all__", ()):
        public = (getattr(client, name) for name in names)
        made["reference/client.md"] = _client([each for each in public if inspect.isclass(each)])  # no alias of types
    return made


def _client(public: list[type]) -> str:
    members = ("heading_level: 3", "members: null")
    errors = [each for each in public if issubclass(each, Exception)]
    shared = dict.fromkeys(base for each in public for base in each.__mro__ if base.__module__.startswith(CLIENT))
    asking = [each for each in shared if each not in errors]
    lines = [_CLIENT, "## Asking\n", *(_entry(f"{each.__module__}.{each.__name__}", *members) for each in asking)]
    lines.append("## Errors\n")
    lines += [_entry(f"{each.__module__}.{each.__name__}", "heading_level: 3", "show_bases: true") for each in errors]
    return "\n".join(lines)


def _methods() -> str:
    lines = [_METHODS]
    for family in get_args(Family):
        lines.append(f"## {family.capitalize()}\n")
        if family in COMMON:
            lines.append(_entry(COMMON[family], "show_root_heading: false", "show_root_toc_entry: false"))
        of_family = (method.function for method in METHODS.values() if method.family == family)
        lines += [_entry(f"{function.__module__}.{function.__name__}", "heading_level: 3") for function in of_family]
    return "\n".join(lines)


def _tools() -> str:
    maps = [f"{library.__name__}.{module}.{name}" for name, module in library.UTILITIES.items()]
    lines = [_TOOLS]
    for heading, names in {"Maps": maps, **PARTS}.items():
        members = ["members: null"] if heading in WITH_MEMBERS else []
        lines += [f"## {heading}\n", *(_entry(name, "heading_level: 3", *members) for name in names)]
    return "\n".join(lines)


def _entry(name: str, *options: str) -> str:
    """Lines that mkdocstrings replaces by a signature and a docstring."""
    return "\n".join([f"::: {name}", "    options:", *(f"      {option}" for option in options), ""])
