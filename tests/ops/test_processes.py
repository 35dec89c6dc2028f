"""Processes that are ended: those that go, those that do not, and those that nobody asks about afterwards."""

from __future__ import annotations

import subprocess
import sys

import psutil

from imagexplain.ops.processes import end_all, wait_for_ends

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def test_one_that_does_not_go_is_ended_by_force() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout and stubborn.stdout.readline()
        process = psutil.Process(stubborn.pid)
        assert wait_for_ends([process], 0) == [process]
        end_all([process], patience_s=0.2)
        assert process.status() == psutil.STATUS_ZOMBIE
    assert stubborn.returncode == -9


def test_one_that_nobody_has_asked_about_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        process = psutil.Process(ended.pid)
        assert wait_for_ends([process], 60) == []
        assert process.status() == psutil.STATUS_ZOMBIE
        end_all([process])
    end_all([process])
