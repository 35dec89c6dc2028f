"""The expiration of keys, and what systemd is told."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagexplain.ops.key_renewal import expiring
from imagexplain.ops.notify import notify

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_key_is_renewed_on_its_last_day(tmp_path: Path) -> None:
    """TorchServe writes the time with nine digits after the second."""
    ends = {"inference": NOW + timedelta(hours=23), "management": NOW + timedelta(hours=25)}
    keys = {kind: {"key": "x", "expiration time": f"{end:%Y-%m-%dT%H:%M:%S}.123456789Z"} for kind, end in ends.items()}
    file = tmp_path / "key_file.json"
    file.write_text(json.dumps(keys | {"API": {"key": "x"}}))
    assert expiring(file, NOW) == ["inference"]
    assert expiring(file, NOW - timedelta(days=2)) == []
    assert expiring(file, NOW + timedelta(days=2)) == ["inference", "management"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"inference": {"expiration time": 5}}'])
def test_a_file_of_no_keys_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key_file.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"wanted keys|Expecting value|Invalid isoformat"):
        expiring(file, NOW)


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "s"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", "@absent")
    notify("WATCHDOG=1")
