"""``python -m imagexplain``: the command line."""

import sys

from imagexplain.cli import main

if __name__ == "__main__":
    sys.exit(main())
