# Sourced: python_for 3.12 prints the first interpreter of that version found here, or nothing.

minor_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

candidates() {
  printf '%s\n' python3.11 python3.12 python3.13 python3
  if command -v pyenv >/dev/null 2>&1; then
    for found in "$(pyenv root)"/versions/3.1[123].*/bin/python; do printf '%s\n' "$found"; done
  fi
}

# The first candidate that really runs: pyenv's shims are on the PATH and fail where not activated.
python_for() {
  candidates | while IFS= read -r candidate; do
    if [ "$(minor_of "$candidate")" = "$1" ]; then printf '%s\n' "$candidate"; break; fi
  done
}
