#!/usr/bin/env bash
# Creates .venv with the pinned dependencies, a Java runtime included. Called by `make setup`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
if ! command -v "$python" >/dev/null && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  python=python3
fi
if ! command -v "$python" >/dev/null; then
  echo "error: no $python here; install Python 3.11 or newer, or name one: make setup PYTHON=..." >&2
  exit 1
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  echo "creating .venv with $("$python" --version)"
  if ! "$python" -m venv .venv && ! { rm -rf .venv && "$python" -m virtualenv .venv; }; then
    rm -rf .venv
    echo "error: $python cannot create a virtual environment; on Debian: apt install python3.11-venv" >&2
    exit 1
  fi
fi
echo "installing the pinned dependencies (the first time some minutes)"
pip=(.venv/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet 'pip==26.3' # Debian's knows no dependency groups
"${pip[@]}" install --editable '.[dev]' --constraint constraints.txt
"${pip[@]}" install --group segmenters --group peers --group clients --no-deps --constraint constraints.txt # why: see pyproject.toml
touch .venv/.installed
