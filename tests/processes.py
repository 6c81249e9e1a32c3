r"""Python in processes of its own, as a user starts it."""

import os
import subprocess
import sys

LIMIT = 600.0
"""Seconds after which a process hangs, on however busy a machine: before pytest's own limit."""


def run_python(
    *arguments: object, processes: int = 1, **environment: str
) -> subprocess.CompletedProcess[str]:
    r"""Runs a script or ``-c`` code, by ``torchrun`` in several processes; each has one thread."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), "--"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=LIMIT,
    )
