"""Runs :mod:`evaluation.evaluate_methods`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from evaluation.evaluate_methods import main

if __name__ == "__main__":
    sys.exit(main())
