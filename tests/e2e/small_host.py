"""Lets a program see a host with less memory: `python small_host.py MEMINFO PROGRAM ARGUMENTS…`, in a mount namespace of its own.

What it reads as /proc/meminfo is the file MEMINFO, as lxcfs does it for containers; all else of /proc is the host's.
"""

from __future__ import annotations

import os
import subprocess
import sys

meminfo, *program = sys.argv[1:]
subprocess.run(("mount", "--bind", meminfo, "/proc/meminfo"), check=True)
os.execv(program[0], program)
