"""Runs :mod:`imagexplain.ops.server`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from imagexplain.ops.server import main

if __name__ == "__main__":
    sys.exit(main())
