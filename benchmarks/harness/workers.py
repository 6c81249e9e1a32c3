"""Processes of their own that are told what to do a line at a time, and what they measure."""

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .rows import ROOT

# Blocks of up to 32 MiB, glibc's limit, lie on the heap, which is not given back below 1 GiB.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


def environment(**more: str) -> dict[str, str]:
    """This process's, with the benchmarks and the package where an import finds them."""
    paths = [str(ROOT / "benchmarks"), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


class Worker:
    """A process that makes a task and does what it is told.

    Args:
        name: For messages.
        module: Of a script; its ``main(options)`` makes the task.
        options: What it is made of.
        before: Code that runs first.
        **env: Variables of the process's environment.
    """

    def __init__(
        self, name: str, module: str, options: Mapping[str, Any], before: str = "pass", **env: str
    ) -> None:
        self.name, pipes = name, {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        code = f"{before}\nfrom harness.workers import serve\nserve({module!r})"
        command = [sys.executable, "-c", code, json.dumps(options)]
        self.process = subprocess.Popen(command, env=environment(**env), text=True, **pipes)

    def ask(self, *command: object) -> Any:
        """The answer to a command: the name of one of the task's methods, and its arguments."""
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError(f"the process of {self.name} ended at {command[0]!r}") from error


def serve(module: str) -> None:
    """Answers the commands on standard input, a line of JSON each, until it is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    task = importlib.import_module(module).main(json.loads(sys.argv[1]))
    for line in sys.stdin:
        command, *args = json.loads(line)
        print(json.dumps(getattr(task, command)(*args)), file=answers, flush=True)


def in_fresh_process(module: str, function: str, **options: Any) -> dict[str, Any]:
    """The result of a function of a script, in a new interpreter with as many threads."""
    code = (
        f"import json, sys, torch\ntorch.set_num_threads({torch.get_num_threads()})\n"
        f"from {module} import {function}\n"
        f"print(json.dumps({function}(**json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(options)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ratios(values: list[float], others: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratios of values to others of the same turn."""
    found = [value / other for value, other in zip(values, others, strict=True)]
    q1, median, q3 = statistics.quantiles(found, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def seconds(call: Callable[[], object], number: int = 1, warm_up: int = 0) -> list[float]:
    """Seconds of each of some calls, after some that do not count."""
    found = []
    for _ in range(number + warm_up):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return found[warm_up:]


def status_mib(field: str) -> float:
    """A field of this process's status in MiB (Linux); a process inherits no peak by it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(field))


def processor() -> str:
    """The name of the machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def warn_of_load() -> float:
    """How many cores others keep busy, said where times will suffer."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"others keep {load:.1f} cores busy: times will be too long", file=sys.stderr)
    return load
