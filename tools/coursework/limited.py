"""Runs a command with the operating system's limits: limited.py MEMORY FILES COMMAND... (bytes)."""

import os
import resource
import sys

memory, files = int(sys.argv[1]), int(sys.argv[2])
# data, not addresses: a JAX process maps far more than it uses
for limit, most in [
    (resource.RLIMIT_DATA, memory),
    (resource.RLIMIT_FSIZE, files),
    (resource.RLIMIT_CORE, 0),
]:
    resource.setrlimit(limit, (most, most))
os.execvp(sys.argv[3], sys.argv[3:])
