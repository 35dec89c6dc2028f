"""Compute the numbers and the pictures of docs/meaning.md anew: `python -m evaluation.evaluate_meaning`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from evaluation.meaning import PARTS
from evaluation.meaning_pictures import draw
from imagexplain.checkout import ROOT
from imagexplain.progress import say

RECORD = ROOT / "benchmarks" / "results_meaning.json"


def rounded(value: Any) -> Any:
    """Plain values with six digits each."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main() -> int:
    """Compute the record anew, and draw its pictures."""
    record = {}
    for part in PARTS:
        say(part.__name__)
        record[part.__name__] = rounded(part())
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draw(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
