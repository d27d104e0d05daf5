#!/bin/sh
# Makes the environment $1 from the lock $2 (requirements.txt). Interpreter: $PYTHON, or the first fit found.
set -eu
env=$1
lock=${2:-requirements.txt}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || { echo "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13 ($("$PYTHON" --version 2>&1 || true)): set PYTHON to one that is." >&2; exit 1; }
else
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if fits "$candidate"; then PYTHON=$candidate; break; fi
  done
  [ -n "${PYTHON:-}" ] || { echo "This book needs Python 3.11, 3.12 or 3.13 and found $(python3 --version 2>&1 || echo none): install one, or name it with make PYTHON=/path/to/python3.12 book." >&2; exit 1; }
fi

echo "Setting up $env with $("$PYTHON" --version) (once; a few minutes)"
# one that another Python made, or that was left half done, is made anew; else it is brought up to date
"$env/bin/python" -m pip --version >/dev/null 2>&1 && fits "$env/bin/python" || rm -rf "$env"
test -d "$env" || "$PYTHON" -m venv "$env" || { echo "Python's venv module is missing: on Debian and Ubuntu, apt install python3-venv." >&2; exit 1; }
"$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$lock"
date -u +%Y-%m-%dT%H:%MZ > "$env/ready"
