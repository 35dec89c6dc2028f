"""Runs :mod:`evaluation.evaluate`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from evaluation.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
