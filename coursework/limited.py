"""Runs a command with the operating system's limits: limited.py MEMORY FILES THREADS USER COMMAND...

USER is the number of the user that root becomes, and 0 for a command that is trusted.
"""

import os
import resource
import sys

memory, files, threads, nobody = map(int, sys.argv[1:5])
# data, not addresses: a JAX process maps far more than it uses
for limit, most in [
    (resource.RLIMIT_DATA, memory),
    (resource.RLIMIT_FSIZE, files),
    (resource.RLIMIT_NPROC, threads),
    (resource.RLIMIT_CORE, 0),
]:
    resource.setrlimit(limit, (most, most))
if nobody:
    os.nice(19)  # whatever it starts, the watch over it has its turn
if nobody and os.getuid() == 0:
    for name in os.listdir("."):
        os.chown(name, nobody, nobody, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(nobody, nobody, nobody)
    os.setresuid(nobody, nobody, nobody)
os.execvp(sys.argv[5], sys.argv[5:])
