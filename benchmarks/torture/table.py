"""Counts of each scenario's requests, as rows and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.torture.answers import Verdict
from benchmarks.torture.found import Found
from benchmarks.torture.load import Outcome

NOTICE_SECONDS = 1.0
"""Time in which TorchServe may hand requests to a worker whose end it has not seen yet."""


@dataclass(frozen=True)
class Row:
    """A scenario's count.

    Attributes:
        scenario: Its name.
        sent: Number of requests with known answers.
        right, wrong, clear, unclear, lost: Number of them by verdict; clear and unclear count the scenario's own too.
        recovery_s: Seconds from what went wrong to the last request that was not answered right, without those that
            were lost in flight; None where nothing in particular went wrong.
        told: Further words.
        examples: Texts of what was wrong, unclear or lost, with their numbers.
        in_flight: Number of lost ones that were asked before, or within :data:`NOTICE_SECONDS` of, what went wrong.
    """

    scenario: str
    sent: int
    right: int
    wrong: int
    clear: int
    unclear: int
    lost: int
    recovery_s: float | None
    told: str
    examples: dict[str, int]
    in_flight: int = 0


def row(scenario: str, outcomes: Sequence[Outcome], found: Found) -> Row:
    """The count of a scenario.

    Args:
        scenario: Its name.
        outcomes: All requests of its load.
        found: Its findings beside.
    """
    counts = Counter(outcome.verdict for outcome in outcomes)
    bad = [outcome for outcome in outcomes if outcome.verdict != Verdict.RIGHT]
    recovery, in_flight = None, 0
    if found.since is not None:
        noticed = found.since + NOTICE_SECONDS
        late = [each for each in bad if each.verdict != Verdict.LOST or each.asked > noticed]
        recovery, in_flight = (
            round(max((each.settled - found.since for each in late), default=0.0), 1),
            len(bad) - len(late),
        )
    examples = Counter(each.said for each in bad if each.verdict != Verdict.CLEAR)
    examples.update(found.unclear)
    return Row(
        scenario=scenario,
        sent=len(outcomes),
        right=counts[Verdict.RIGHT],
        wrong=counts[Verdict.WRONG],
        clear=counts[Verdict.CLEAR] + found.clear,
        unclear=counts[Verdict.UNCLEAR] + len(found.unclear),
        lost=counts[Verdict.LOST],
        recovery_s=recovery,
        told=found.told,
        examples=dict(examples.most_common(5)),
        in_flight=in_flight,
    )


def text(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| | sent | right | wrong | clear errors | unclear | lost | recovery, seconds | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in rows:
        recovery = "" if each.recovery_s is None else f"{each.recovery_s:g}"
        counts = (each.sent, each.right, each.wrong, each.clear, each.unclear, each.lost)
        lines.append(f"| {each.scenario} | {' | '.join(map(str, counts))} | {recovery} | {each.told} |")
    return "\n".join(lines)


def records(rows: Sequence[Row]) -> list[dict[str, object]]:
    """The rows as JSON holds them."""
    return [asdict(each) for each in rows]
