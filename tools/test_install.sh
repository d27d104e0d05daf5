#!/bin/sh
# Installs the library alone with every supported Python found here and tries it (tools/test_install.py).
set -u

. tools/pythons.sh

failed=0
tested=0
for minor in 3.11 3.12 3.13; do
  python=$(python_for "$minor")
  if [ -z "$python" ]; then echo "Python $minor: not found here, so not tested"; continue; fi
  tested=$((tested + 1))
  "$python" tools/test_install.py || failed=1
done
if [ "$tested" = 0 ]; then echo "No supported Python (3.11, 3.12 or 3.13) found." >&2; exit 1; fi
exit "$failed"
