#!/bin/sh
# Runs the tests of `make test` on every supported Python found here, each in its own .venvs/3.X.
# Arguments go to pytest: sh tools/test_matrix.sh tests/library/test_compat.py
set -u

. tools/pythons.sh

failed=0
tested=0
summary=""
missing=""
for minor in 3.11 3.12 3.13; do
  python=$(python_for "$minor")
  if [ -z "$python" ]; then missing="$missing $minor"; continue; fi
  tested=$((tested + 1))
  env=.venvs/$minor
  if [ ! -f "$env/ready" ] || [ -n "$(find requirements.txt -newer "$env/ready")" ]; then
    if ! PYTHON=$python sh tools/setup.sh "$env"; then
      failed=1
      summary="$summary  Python $minor: setting up $env failed
"
      continue
    fi
  fi
  echo "== Python $minor ($python)"
  log=$env/tests.log
  status=$env/tests.status
  # a pipe has the status of tee, so that of pytest goes through a file
  { "$env/bin/python" -m pytest -q -n 2 -m "not slow and not faults" "$@" 2>&1; echo $? > "$status"; } | tee "$log"
  if [ "$(cat "$status")" = 0 ]; then verdict=passed; else verdict=FAILED; failed=1; fi
  jax=$("$env/bin/python" -c 'from importlib.metadata import version; print(version("jax"))')
  summary="$summary  Python $minor, JAX $jax: $verdict: $(tail -n 1 "$log")
"
done

printf '\n%s' "$summary"
[ -z "$missing" ] || echo "  not found here, so not tested:$missing"
if [ "$tested" = 0 ]; then echo "No supported Python (3.11, 3.12 or 3.13) found." >&2; exit 1; fi
exit "$failed"
