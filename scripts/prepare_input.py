"""Runs :mod:`imagexplain.cli.prepare_input`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from imagexplain.cli.prepare_input import main

if __name__ == "__main__":
    main()
