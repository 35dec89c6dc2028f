"""Check this machine, the archives and the server, and say what to do: Python, packages, Java, ports, memory, disk,
cores, GPUs, programs, the clock, archives and their code, the server's state, its keys, and each model.

imagexplain doctor
imagexplain doctor --json

The exit status is 1 where something fails; a warning is no failure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.ops.doctor import Finding, examine
from imagexplain.ops.machine import observed
from imagexplain.plain_text import printable


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives are")
    made.add_argument("--port", type=int, help="first of five ports (default: those of config.properties)")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    findings = examine(observed(ROOT, given.store.resolve(), given.run.resolve(), given.port))
    print(json.dumps([asdict(finding) for finding in findings], indent=2) if given.json else text(findings))
    return int(any(finding.status == "failure" for finding in findings))


def text(findings: Sequence[Finding]) -> str:
    """The findings for a reader, and the numbers of failures and warnings."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:7}  {finding.check:{width}}  {printable(finding.said)}")
        if finding.advice:
            lines.append(f"{'':7}  {'':{width}}  → {printable(finding.advice)}")
    failures, warnings = (sum(finding.status == status for finding in findings) for status in ("failure", "warning"))
    return "\n".join([*lines, f"failures: {failures}, warnings: {warnings}"])
