"""Clients that ask at once, each again as soon as it has its answer, and a record of all that they got."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from benchmarks.torture.answers import Question, Verdict, verdict_on


@dataclass(frozen=True)
class Outcome:
    """A request's fate, and when it was asked and settled, by the monotonic clock."""

    question: Question
    verdict: Verdict
    asked: float
    settled: float
    said: str


@dataclass
class Load:
    """The clients' side of the service.

    Attributes:
        url: Address of the front door.
        key: Key of the client.
        certificate: File of the certificate to believe.
        known: Right answers by their questions.
        outcomes: All requests that are settled.
    """

    url: str
    key: str
    certificate: str
    known: dict[Question, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def session(self) -> requests.Session:
        """A client's connection."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.key}"
        session.verify = self.certificate
        session.trust_env = False
        return session

    def learn(self, questions: Sequence[Question]) -> None:
        """Ask each question twice while all is calm, and know its answer from then on.

        Raises:
            RuntimeError: no answer, or two that differ.
        """
        with self.session() as session:
            for question in questions:
                first, second = (question.ask(session, self.url) for _ in range(2))
                if first.status_code != 200 or verdict_on(second, first.json()) != Verdict.RIGHT:
                    raise RuntimeError(f"{question.path}: wanted the same answer twice, got {first.text:.300}")
                self.known[question] = first.json()

    def ask(self, session: requests.Session, question: Question, timeout: float = 60) -> Outcome:
        """Ask one question, and record what becomes of it."""
        asked = time.monotonic()
        try:
            answer = question.ask(session, self.url, timeout)
            verdict, said = verdict_on(answer, self.known[question]), f"{answer.status_code} {answer.text[:200]}"
        except requests.RequestException as error:
            verdict, said = Verdict.LOST, type(error).__name__
        outcome = Outcome(question, verdict, asked, time.monotonic(), said)
        self.outcomes.append(outcome)
        return outcome

    @contextmanager
    def running(self, clients: int, *, pause_s: float) -> Iterator[None]:
        """Ask all questions in turn, while the block runs.

        Args:
            clients: Number of clients that ask at once.
            pause_s: Seconds between a client's answer and its next question.
        """
        stopped = threading.Event()

        def client(offset: int) -> None:
            order = itertools.islice(itertools.cycle(self.known), offset, None)
            with self.session() as session:
                while not stopped.wait(pause_s):
                    self.ask(session, next(order))

        threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
