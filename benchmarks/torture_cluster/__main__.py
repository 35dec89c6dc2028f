"""Torture of Ray Serve: each scenario under load, and a table of what became of the requests.

    python -m benchmarks.torture_cluster [--ways direct] [--only calm roll-out …] [--out FILE] [--write]

One archive of deploy/ray/serve.yaml has two replicas on two workers, beside a head that takes none. Clients ask
questions whose answers are known to the last digit, one after the other: the nodes' proxies in turn (`direct`), or the
front door, which asks once more what was lost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.tables import put
from benchmarks.torture.answers import Verdict
from benchmarks.torture.table import Row, records, row, text
from benchmarks.torture_cluster import redis
from benchmarks.torture_cluster.scenarios import ONCE, SCENARIOS, WITH_REDIS
from benchmarks.torture_cluster.served import WAYS, Served, served
from evaluation.machine import machine
from imagexplain.ops.signals import ended_by_signals

CLIENTS, PAUSE_S = 4, 0.05


def endure(served: Served, name: str, way: str = "direct", lead_s: float = 2.0) -> Row:
    """Run a scenario under load, and count what became of the requests.

    Args:
        served: Application in service.
        name: Key of :data:`SCENARIOS`.
        way: Way of the requests, for the row's name.
        lead_s: Seconds of load before and after it.
    """
    outcomes = served.load.outcomes
    outcomes.clear()
    with served.load.running(CLIENTS, pause_s=PAUSE_S):
        time.sleep(lead_s)
        found = SCENARIOS[name](served)
        time.sleep(lead_s)
    slowest = max((each.settled - each.asked for each in outcomes if each.verdict == Verdict.RIGHT), default=0.0)
    found.told = "; ".join(filter(None, (found.told, f"slowest right answer {slowest:.1f} s")))
    return row(f"{name}, {way}", outcomes, found)


def torture(folder: Path, ways: Sequence[str] = tuple(WAYS), names: Sequence[str] = tuple(SCENARIOS)) -> Iterator[Row]:
    """Run scenarios one after the other, on a cluster for each way of the requests, and one with Redis where it is.

    Args:
        folder: Directory for all files, empty.
        ways: Keys of :data:`WAYS`.
        names: Keys of :data:`SCENARIOS`.
    """
    for place, way in enumerate(ways):
        own = folder / way.replace(" ", "_")
        if plain := [name for name in names if name not in WITH_REDIS and (place == 0 or name not in ONCE)]:
            with served(own / "plain", WAYS[way]) as running:
                for name in plain:
                    yield endure(running, name, way)
        for number, name in enumerate(name for name in names if name in WITH_REDIS):
            if not redis.installed():
                print(f"{name}, {way}: skipped, for {redis.PROGRAM} is not installed", flush=True)
                continue
            with redis.redis() as address, served(own / f"redis{number}", WAYS[way], address) as running:
                yield endure(running, name, way)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows with both ways of a scenario one after the other."""
    names = list(SCENARIOS)
    return sorted(rows, key=lambda each: names.index(each.scenario.partition(",")[0]))


def tell(rows: Sequence[Row], out: Path | None) -> None:
    """Print the table, and record it, where that is wanted."""
    rows = ordered(rows)
    print(text(rows))
    for each in rows:
        if each.examples:
            print(f"{each.scenario}: {json.dumps(each.examples, indent=1, ensure_ascii=False)}")
    if out:
        out.write_text(json.dumps({"machine": machine(), "rows": records(rows)}, indent=1) + "\n")


def main() -> int:
    """The command line; returns the exit status: 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture_cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md, too")
    options = parser.parse_args()
    rows: list[Row] = []
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="torture-") as folder:
        try:
            for each in torture(Path(folder), options.ways, options.only):
                rows.append(each)
                print(text([each]).splitlines()[-1], flush=True)
        finally:
            tell(rows, options.out)
    if options.write:
        put("scale", {"survival": text(ordered(rows)) + "\n"})
    return int(any(each.wrong for each in rows))


if __name__ == "__main__":
    raise SystemExit(main())
