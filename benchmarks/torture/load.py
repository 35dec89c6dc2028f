"""Clients that ask at once, each again as soon as it has its answer, and a record of all that they got."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

from benchmarks.torture.answers import Question, Verdict, same, verdict_on
from benchmarks.torture.waiting import until


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
        urls: Addresses, which are asked in turn. Where nobody listens the next one is asked, and nothing else is asked
            twice.
        key: Key of the client; empty where none is wanted.
        certificate: File of the certificate to believe, where there is one.
        equal: Function that tells whether an answer's content is a right one's.
        known: Contents of the right answers by their questions; more than one where a model is being replaced.
        outcomes: All requests that are settled.
    """

    urls: Sequence[str]
    key: str = ""
    certificate: str | None = None
    equal: Callable[[Any, Any], bool] = same
    known: dict[Question, tuple[Any, ...]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        """The first address."""
        return self.urls[0]

    def session(self) -> requests.Session:
        """A client's connection."""
        session = requests.Session()
        if self.key:
            session.headers["Authorization"] = f"Bearer {self.key}"
        if self.certificate:
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
                self.known[question] = (first.json(),)

    def ask(self, session: requests.Session, question: Question, timeout: float = 60) -> Outcome:
        """Ask one question, and record what becomes of it."""
        asked = time.monotonic()
        try:
            answer = self._answer(session, question, timeout)
            verdict = verdict_on(answer, *self.known[question], equal=self.equal)
            said = f"{answer.status_code} {answer.text[:200]}"
        except requests.RequestException as error:
            verdict, said = Verdict.LOST, type(error).__name__
        outcome = Outcome(question, verdict, asked, time.monotonic(), said)
        self.outcomes.append(outcome)
        return outcome

    def _answer(self, session: requests.Session, question: Question, timeout: float) -> requests.Response:
        first = next(self._turns)
        for place in range(len(self.urls) - 1):
            try:
                return question.ask(session, self.urls[(first + place) % len(self.urls)], timeout)
            except requests.ConnectionError as error:
                if not _refused(error):
                    raise
        return question.ask(session, self.urls[(first - 1) % len(self.urls)], timeout)

    def flood(self, question: Question, times: int) -> None:
        """Ask one question many times at once, each on a connection of its own."""

        def one() -> None:
            with self.session() as session:
                self.ask(session, question)

        threads = [threading.Thread(target=one) for _ in range(times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def until_right(self, seconds: float) -> None:
        """Wait until each question, asked from now on, has been answered right.

        Raises:
            TimeoutError: one is not within the time.
        """
        began = time.monotonic()

        def all_right() -> bool:
            late = [each for each in list(self.outcomes) if each.asked > began and each.verdict == Verdict.RIGHT]
            return {each.question for each in late} == self.known.keys()

        until(all_right, seconds)

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


def _refused(error: requests.ConnectionError) -> bool:
    """Tell whether nobody listened, so that nothing was sent."""
    return isinstance(getattr(error.args[0] if error.args else None, "reason", None), NewConnectionError)
