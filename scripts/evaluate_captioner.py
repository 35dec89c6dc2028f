"""Run ``imagexplain evaluate-captioner`` of this checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from imagexplain.cli import run

if __name__ == "__main__":
    sys.exit(run("evaluate-captioner"))
