"""Other models of the same server: segmenters, asked over their own endpoints for the segments of photos.

A call over the loopback costs milliseconds beside the seconds that a segmenter takes, keeps one copy of its weights for
all who ask, and leaves its failures in its own process. But nobody else is served by a worker that waits; hence:

- Only segmenters are asked. Who is one, the specs say of the archives that TorchServe unpacked side by side.
- A segmenter that is being asked does not ask, and one that asks is asked by classifiers alone: no ring of workers
  waits for itself. Locks say so, which the kernel releases when a worker dies: a shared one on the spec of whoever is
  asked, an exclusive one on the asking segmenter's own. So of a segmenter's workers one at a time may ask.
- The questions of a batch go out together, equal ones once, and all of them have ``BUDGET_FRACTION`` of the batch's
  time.
- Whoever lets that pass is not asked for as long as a batch may take; then one batch tries again.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import psutil
import requests
import urllib3

from imagexplain.api.options import SEGMENTS
from imagexplain.api.request import Request
from imagexplain.archive.spec import SPEC_FILE
from imagexplain.errors import RequestError, shown
from imagexplain.limits import Limits
from imagexplain.serving.metrics import NeighbourOutcome
from imagexplain.vision.decode import Photo
from imagexplain.vision.masks import PhotoMasks, parse_masks

logger = logging.getLogger(__name__)

ADDRESS = "http://127.0.0.1:8080"
"""Address of the inference endpoints in config.properties; TorchServe's own variable overrides it."""

KEY_FILE = "key_file.json"

BUDGET_FRACTION = 0.2
"""Part of a batch's time within which its segments must be there, 19 s of 96: so long may others have to wait."""


READ_BYTES = 65_536
"""Bytes of an answer that are read at once, at most."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors that msgspec raises for what is no JSON: letters that are no UTF-8 and deep nesting have their own."""


def uncounted(outcome: NeighbourOutcome) -> None:
    """Count nothing."""


class NoAnswerError(RequestError):
    """A segmenter that let its time pass."""

    def __init__(self, name: str) -> None:
        super().__init__(
            503, "segments", f"the segmenter {name} did not answer in time; try again, or allow a fallback"
        )


class Ask(Protocol):
    """A function that gives a segmenter's answer: :func:`segments_of`, or one that looks up answers that have come."""

    def __call__(
        self, name: str, photo: Photo, limits: Limits, *, threshold: float | None, ends: float, fresh: bool = False
    ) -> PhotoMasks:
        """See :func:`segments_of`."""


class Spec(msgspec.Struct):
    """The fields of a model's ``spec.json`` that matter here."""

    name: str
    handler: str


class Question(NamedTuple):
    """A photo for a segmenter; equal ones have equal answers."""

    name: str
    size: tuple[int, int]
    pixels: bytes
    threshold: float | None
    fresh: bool


@dataclass
class RemoteSegments:
    """A worker's knowledge of the models beside its own, from batch to batch.

    Attributes:
        own: Name of the worker's model.
        archive: Directory of its unpacked archive; those of the other models lie beside it.
        limits: Bounds on the number of masks.
        budget: Seconds that a batch may take.
        count: Function that counts the fate of each question.
        down: Clock readings before which segmenters are not asked, of those that did not answer.
        clock: Seconds, monotonic.
        transport: Function that asks one question; by default over HTTP.
    """

    own: str
    archive: Path
    limits: Limits
    budget: float
    count: Callable[[NeighbourOutcome], None] = uncounted
    down: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    transport: Ask = field(default_factory=lambda: segments_of)

    def ask(self, batch: Iterable[tuple[Request, bool]], ends: float) -> Ask:
        """Put all questions of a batch and wait for the answers, ``BUDGET_FRACTION`` of the budget at most.

        Args:
            batch: Requests, each with a flag for a client that wants no cached results.
            ends: Clock reading by which the batch must have been answered.

        Returns:
            The function that gives the answers, for :func:`fetch_segments`.
        """
        photos: dict[Question, Photo] = {}
        for request, fresh in batch:
            asked = request.segments
            if asked is not None and asked.is_remote and asked.name != self.own:
                photos[_question(asked.name, request.photo, asked.threshold, fresh)] = request.photo
        answers = self._answers(photos, min(ends, self.clock() + BUDGET_FRACTION * self.budget)) if photos else {}

        def answered(
            name: str, photo: Photo, limits: Limits, *, threshold: float | None, ends: float, fresh: bool = False
        ) -> PhotoMasks:
            answer = answers[_question(name, photo, threshold, fresh)]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return answered

    def _answers(self, photos: dict[Question, Photo], ends: float) -> dict[Question, PhotoMasks | Exception]:
        answers: dict[Question, PhotoMasks | Exception] = {}
        with ExitStack() as locks:
            for name in {question.name for question in photos}:
                try:
                    self._allow(name, locks)
                except RequestError as refusal:
                    answers |= {question: refusal for question in photos if question.name == name}
                    if refusal.status == 503:
                        self.count("not_asked")
            asked = [question for question in photos if question not in answers]
            answers |= self._ask(asked, photos, ends)
        for question in asked:
            self.count(_outcome(answers[question]))
        for name in {question.name for question in asked}:
            self.down.pop(name, None)
            if any(isinstance(answers[question], NoAnswerError) for question in asked if question.name == name):
                self.down[name] = self.clock() + self.budget
        return answers

    def _allow(self, name: str, locks: ExitStack) -> None:
        """Hold the locks that keep workers from asking one another in a ring.

        Raises:
            RequestError: 422 for a name that is no segmenter's; 503 for one that cannot be asked now.
        """
        known = _known(self.archive.parent)
        segmenters = sorted(other for other, entries in known.items() if _finds_masks(entries))
        if name not in segmenters:
            if name in known:
                raise _finds_none(name)
            wanted = f"wanted {', '.join(SEGMENTS)} or a segmenter that is served here"
            raise RequestError(422, "segments", f"{wanted} ({', '.join(segmenters) or 'none is'}), got {shown(name)}")
        self._check_rest(name)
        hint = "try again, or allow a fallback"
        may_be_asked = self.own in segmenters
        if may_be_asked and not _hold(locks, self.archive / SPEC_FILE, fcntl.LOCK_EX):
            raise RequestError(503, "segments", f"{self.own} is being asked itself, or asks already; {hint}")
        if not all(_hold(locks, path, fcntl.LOCK_SH) for path, _ in known[name]) and may_be_asked:
            raise RequestError(503, "segments", f"the segmenter {name} is asking another one itself; {hint}")

    def _check_rest(self, name: str) -> None:
        """Refuse a question to a segmenter that did not answer lately. Raises RequestError."""
        left = self.down.get(name, 0) - self.clock()
        if left > 0:
            message = f"the segmenter {name} did not answer lately and is not asked for another {left:.0f} s"
            raise RequestError(503, "segments", f"{message}; try again then, or allow a fallback")

    def _ask(
        self, asked: list[Question], photos: dict[Question, Photo], ends: float
    ) -> dict[Question, PhotoMasks | Exception]:
        def answer(question: Question) -> PhotoMasks | Exception:
            name, _, _, threshold, fresh = question
            try:
                return self.transport(name, photos[question], self.limits, threshold=threshold, ends=ends, fresh=fresh)
            except Exception as error:  # raised again where it is that request's alone
                return error

        threads = ThreadPoolExecutor(max(1, len(asked)), "remote-segments")
        futures = {question: threads.submit(answer, question) for question in asked}
        wait(futures.values(), timeout=ends - self.clock())
        threads.shutdown(wait=False)  # which end a moment later, by a limit of their own
        return {
            question: future.result() if future.done() else NoAnswerError(question.name)
            for question, future in futures.items()
        }


class PhotoRefusedError(RequestError):
    """A segmenter's refusal of the photo itself, as too large or too narrow, for which a fallback stands in."""


def fetch_segments(
    request: Request, own: str, limits: Limits, ends: float, *, fresh: bool = False, ask: Ask | None = None
) -> tuple[Request, PhotoMasks | None]:
    """The segments that another model finds, where the request asks for them; see :func:`segments_of`.

    Args:
        request: Parsed request.
        own: Name of the model that asks; its only worker would wait for itself.
        limits: Bounds on the number of masks.
        ends: Clock reading by which the segmenter must have answered.
        fresh: Flag for a segmenter that must not use cached results, either.
        ask: Function that gives the answer; by default a question of its own.

    Returns:
        The request, with its fallback as its segments where the other model does not answer; and the segments.

    Raises:
        RequestError: like :func:`segments_of`, for a failure without a fallback; 422 for the model itself.
    """
    asked = request.segments
    if asked is None or not asked.is_remote:
        return request, None
    if asked.name == own:
        raise _finds_none(own)
    ask = ask or segments_of
    try:
        found = ask(asked.name, request.photo, limits, threshold=asked.threshold, ends=ends, fresh=fresh)
    except RequestError as refusal:
        if asked.fallback is None or not (refusal.status == 503 or isinstance(refusal, PhotoRefusedError)):
            raise
        logger.warning("%s instead of segments by %s: %s", asked.fallback, asked.name, refusal.message)
        return replace(request, segments=replace(asked, name=asked.fallback)), None
    return request, found


def segments_of(
    name: str, photo: Photo, limits: Limits, *, threshold: float | None, ends: float, fresh: bool = False
) -> PhotoMasks:
    """The instances that a segmenter of this server finds on a photo, labelled and in order of their scores.

    Args:
        name: Name of the segmenter.
        photo: Photo, sent as the file it came as, or as a PNG.
        limits: Bounds on the number of masks.
        threshold: Score that instances must exceed; None for the segmenter's own threshold.
        ends: Reading of the monotonic clock by which it must have answered.
        fresh: Flag for an answer without cached results.

    Raises:
        RequestError: 503 if it does not answer, not in time, or fails; 422 if there is no such segmenter.
    """
    left = ends - time.monotonic()
    if left <= 0:
        raise RequestError(503, "segments", f"no time is left to ask {name} for segments; try again")
    headers = {"Authorization": f"Bearer {_key()}", **question_headers(threshold, fresh=fresh)}
    url, sent = f"{_address()}/predictions/{name}", encoded(photo)
    try:
        with requests.Session() as session:
            session.trust_env = False  # neither a proxy, which would see key and photo, nor the passwords of a .netrc
            answer = session.post(url, data=sent, headers=headers, timeout=left, allow_redirects=False, stream=True)
            body = _read(answer, ends)
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise NoAnswerError(name) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError):
        message = f"the segmenter {name} cannot be reached; try again, or allow a fallback"
        raise RequestError(503, "segments", message) from None
    return masks_of_answer(name, answer.status_code, answer.reason, body, photo, limits)


def question_headers(threshold: float | None, *, fresh: bool) -> dict[str, str]:
    """Headers of a prediction that is asked of a segmenter."""
    headers = {"Accept": "application/json"}
    if threshold is not None:
        headers["X-Explain-Options"] = f"threshold={threshold!r}"
    if fresh:
        headers["Cache-Control"] = "no-cache"
    return headers


def encoded(photo: Photo) -> bytes:
    """The file that a photo came as, or a PNG of it."""
    return photo.encoded or _png(photo)


def _read(answer: requests.Response, ends: float) -> bytes:
    """The body of an answer, as far as it comes in time: a socket's own time limit counts from byte to byte.

    Raises:
        requests.Timeout: once the clock reads ``ends``.
    """
    parts = []
    while part := answer.raw.read1(READ_BYTES, decode_content=True):
        if time.monotonic() > ends:
            raise requests.Timeout
        parts.append(part)
    return b"".join(parts)


def _address() -> str:
    """The address at which this server is asked from within: the loopback's, where it listens on every interface."""
    address = os.environ.get("TS_INFERENCE_ADDRESS", ADDRESS)
    return address.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")


def _outcome(answer: PhotoMasks | Exception) -> NeighbourOutcome:
    match answer:
        case NoAnswerError():
            return "no_answer"
        case RequestError(status=422):
            return "refused"
        case Exception():
            return "failed"
        case _:
            return "ok"


def _question(name: str, photo: Photo, threshold: float | None, fresh: bool) -> Question:
    return Question(name, photo.size, photo.encoded or photo.image.tobytes(), threshold, fresh)


def _known(archives: Path) -> dict[str, list[tuple[Path, Spec]]]:
    """The specs of unpacked archives by name; of a server that was killed, some may be left beside the live ones."""
    found: dict[str, list[tuple[Path, Spec]]] = {}
    for path in archives.glob(f"*/{SPEC_FILE}"):
        try:
            spec = msgspec.json.decode(path.read_bytes(), type=Spec)
        except (OSError, *UNREADABLE):
            continue  # no archive of ours
        found.setdefault(spec.name, []).append((path, spec))
    return found


def _finds_masks(entries: Iterable[tuple[Path, Spec]]) -> bool:
    return any(spec.handler == "segmenter" for _, spec in entries)


def _finds_none(name: str) -> RequestError:
    message = f"wanted the name of a segmenter, got {shown(name)}, which finds no masks"
    return RequestError(422, "segments", message)


def _hold(locks: ExitStack, path: Path, lock: int) -> bool:
    """Lock a file until the stack is unwound, unless somebody else holds it against that."""
    try:
        file = locks.enter_context(path.open("rb"))
        fcntl.flock(file, lock | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def masks_of_answer(name: str, status: int, reason: str, body: bytes, photo: Photo, limits: Limits) -> PhotoMasks:
    """The masks in a segmenter's answer to a prediction.

    Args:
        name: Name of the segmenter.
        status: Status of the answer.
        reason: Words of the status, where the body has none.
        body: Body of the answer.
        photo: Photo that was asked about.
        limits: Bounds on the number of masks.

    Raises:
        RequestError: 422 for a photo that it refuses, or for what is no segmenter; 503 for any other error.
    """
    if status == 404:
        known = f"wanted {', '.join(SEGMENTS)} or a segmenter that is served here"
        raise RequestError(422, "segments", f"{known}, got {shown(name)}")
    content = _content(body)
    if status != 200:
        told = shown(content.get("message", reason))
        message = f"the segmenter {name} answered {status}: {told}"
        if status == 413 or (status == 422 and content.get("field") == "image"):
            raise PhotoRefusedError(422, "segments", message)
        raise RequestError(422 if status == 422 else 503, "segments", message)
    found = content.get("detections")
    if not isinstance(found, list):
        raise _finds_none(name)
    return parse_masks(found[: limits.max_groups], photo.size, limits)


def _content(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    return content if isinstance(content, dict) else {}


def _png(photo: Photo) -> bytes:
    file = io.BytesIO()
    photo.image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _key() -> str:
    """The inference key, from where the server that started this worker keeps it: it changes with every start.

    Raises:
        RequestError: 503 if there is none to be read.
    """
    try:
        server = psutil.Process().parent()
        if server is None:
            raise OSError("the server has gone")
        return str(json.loads(Path(server.cwd(), KEY_FILE).read_text())["inference"]["key"])
    except (OSError, ValueError, KeyError, psutil.Error) as error:
        raise RequestError(503, "segments", f"this server's inference key cannot be read: {error}") from None
