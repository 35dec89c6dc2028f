"""Findings of a scenario beside what its load tells."""

from __future__ import annotations

from dataclasses import dataclass, field

import requests

from benchmarks.torture.answers import is_clear


@dataclass
class Found:
    """Findings of a scenario beside the verdicts of its load.

    Attributes:
        since: Clock reading at which it went wrong; None for what lasts as long as the scenario.
        clear: Number of further requests that got a clear error, as they should.
        unclear: Texts of further answers that nobody understands.
        told: Numbers and words for the table.
    """

    since: float | None = None
    clear: int = 0
    unclear: list[str] = field(default_factory=list)
    told: str = ""

    def post(self, session: requests.Session, url: str, body: bytes, headers: dict[str, str]) -> None:
        """Post what should get a clear error, or a fine answer, and count what comes."""
        try:
            self.note(session.post(url, data=body, headers=headers, timeout=120))
        except requests.RequestException as error:
            self.unclear.append(f"{type(error).__name__} for {url[:100]}")

    def note(self, answer: requests.Response) -> None:
        """Count an answer that should be a clear error, or fine."""
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code == 200 or is_clear(answer, content):
            self.clear += answer.status_code != 200
        else:
            self.unclear.append(f"{answer.status_code} {answer.text[:200]!r}")
