r"""Where a result comes from: the commit, the versions, the memory that it took."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import torch

from gtc_pyg._version import __version__
from gtc_pyg.distributed import world_size


def commit() -> str:
    r"""The commit of the package's own repository, ``-dirty`` where files differ from it.

    ``'unknown'`` where the package is not in a repository of its own.
    """
    folder = Path(__file__).parent
    try:
        # Fails where the package lies in somebody else's repository, in a virtual environment say.
        tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, cwd=folder, capture_output=True, check=True)
        command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions() -> str:
    r"""Versions of the package and of what it computes with, the machine and its threads."""
    names = ("torch", "torch-geometric", "lightning", "numpy")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    machine = f"{platform.machine()} {torch.get_num_threads()} threads"
    if world_size() > 1:
        machine += f" in each of {world_size()} processes"
    return "; ".join(
        [f"gtc-pyg {__version__}", *found, f"python {platform.python_version()}", machine]
    )


def reset_peak() -> None:
    r"""Lets :func:`peak_mib` begin anew, where the system can (Linux, CUDA)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    r"""Peak memory in MiB since :func:`reset_peak`; off Linux, since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
