"""The client of the `kserve` package, without the server, the Kubernetes client and the storage that it imports, too.

The package asks for other versions of what the service needs, so that it is installed without what it asks for.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest


def modules() -> tuple[Any, Any]:
    """The modules of its REST client and of its requests."""
    found = find_spec("kserve")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("kserve is not installed: make setup does so")
    if "kserve" not in sys.modules:
        package = ModuleType("kserve")  # in place of its __init__, which imports all of it
        package.__path__ = list(found.submodule_search_locations)
        package.__spec__ = found
        sys.modules["kserve"] = package
    return import_module("kserve.inference_client"), import_module("kserve.protocol.infer_type")
