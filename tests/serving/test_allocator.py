import platform

import pytest

from imagexplain.serving.allocator import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_glibc_takes_the_settings() -> None:
    assert keep_freed_memory()


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagexplain.serving.allocator.ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
