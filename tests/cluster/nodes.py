"""Nodes of the tests' cluster: small ones, for several of them run on one machine."""

from __future__ import annotations

from typing import Any

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
