"""Torture of the service: each scenario under load, and a table of what became of the requests.

    python -m benchmarks.torture [--short] [--only "kill -9 of a worker" …] [--out benchmarks/results_torture.json]

A supervised TorchServe with three of the demonstration's models stands behind the front door, with limits so wide that
it is TorchServe which is seen. Clients ask questions whose answers are known, one after the other; an answer is right,
wrong, a clear error (in the service's form, with the time to come back where that helps), unclear, or lost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.torture.answers import questions
from benchmarks.torture.scenarios import FULL, LONG, SCENARIOS, SHORT, Size
from benchmarks.torture.service import service
from benchmarks.torture.table import Row, records, row, text
from evaluation.machine import machine


def torture(folder: Path, size: Size, names: Sequence[str] = tuple(SCENARIOS)) -> list[Row]:
    """Run scenarios one after the other on one service.

    Args:
        folder: Directory for all files, empty.
        size: Extent of each scenario.
        names: Keys of :data:`SCENARIOS`.
    """
    rows = []
    with service(folder) as running:
        running.load.learn(questions())
        for name in names:
            running.load.outcomes.clear()
            clients, pause_s = (1, 0.2) if name in LONG else (size.clients, 0.02)
            with running.load.running(clients, pause_s=pause_s):
                found = SCENARIOS[name](running, size)
            rows.append(row(name, running.load.outcomes, found))
            print(text(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def main() -> int:
    """The command line; returns the exit status: 1 where an answer was wrong or unclear."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="a minute's worth")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        rows = torture(Path(folder), SHORT if options.short else FULL, options.only)
    print(text(rows))
    for each in rows:
        if each.examples:
            print(f"{each.scenario}: {json.dumps(each.examples, indent=1, ensure_ascii=False)}")
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rows": records(rows)}, indent=1) + "\n")
    return int(any(each.wrong or each.unclear for each in rows))


if __name__ == "__main__":
    raise SystemExit(main())
