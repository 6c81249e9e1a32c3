"""One part of the inputs of a target, in a process of its own (started by fuzz.py)."""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

INSTRUMENTED = ["gtc_pyg", "yaml", "zipfile", "gzip", "pickletools"]
MIB = 2**20
MOST_TAKEN, MOST_ASKED, MOST_SECONDS = 256 * MIB, 1024 * MIB, 20
FORBIDDEN = re.compile(
    r"os\.(system|exec|fork|posix_spawn|spawn|startfile|remove|rename|mkdir|rmdir|link|symlink|"
    r"chmod|truncate)|subprocess\.|socket\.(connect|bind)|ctypes\.|shutil\.|exec$|pty\.|"
    r"webbrowser|urllib|ftplib|code\.__new__|function\.__new__|winreg"
)


class Hang(BaseException):
    """No answer in time."""


class Watch:
    """An audit hook, on while a reader runs.

    Args:
        own: Whether a file that is written now is the harness's own.
    """

    def __init__(self, own: Callable[[], bool]) -> None:
        self.on, self.seen, self.own = False, list[str](), own
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not (FORBIDDEN.match(event) or self._writes(event, arguments)):
            return
        typed = sys._getframe(1).f_globals.get("__name__") == "typing"  # PyG reads annotations
        coded = event == "exec" and "/encodings/" in arguments[0].co_filename
        if not typed and not coded:
            self.seen.append(f"{event} {arguments!r:.200}")

    def _writes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "open" or not isinstance(arguments[2], int) or self.own():
            return False
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Run:
    """Inputs for one target in this process.

    Args:
        target: A :class:`tests.stress.fuzz_targets.Target`.
        folder: Where inputs are written.
        kept: Where inputs that are faults are kept.
        own: As in :class:`Watch`.
    """

    def __init__(
        self, target: Any, folder: Path, kept: Path, own: Callable[[], bool] = lambda: False
    ) -> None:
        self.target, self.folder, self.kept = target, folder, kept
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.messages: set[str] = set()
        self.faults: dict[str, dict[str, Any]] = {}
        self.inputs = 0
        self.watch = Watch(own)
        self.seeds = target.seeds(folder)
        for _ in range(2):  # whatever is imported or made when first needed is there then
            for seed in (*self.seeds, b"", b"x", self.seeds[0][:-1]):
                with contextlib.suppress(*target.errors):
                    target.read(folder, seed)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.start = self.peak = self._taken()

    @staticmethod
    def _taken() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def limit(self) -> None:
        """No more than ``MOST_ASKED`` beyond what there is, and an alarm for each input."""
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MOST_ASKED, size + MOST_ASKED))
        signal.signal(signal.SIGALRM, self._ring)

    @staticmethod
    def _ring(*_: Any) -> None:
        raise Hang

    def __call__(self, content: bytes) -> None:
        content = content[: self.target.most]
        (self.kept / "last").write_bytes(content)
        self.inputs += 1
        self.watch.seen.clear()
        self.watch.on = True
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        error: BaseException | None = None
        try:
            self.target.read(self.folder, content)
        except BaseException as found:
            error = found
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.watch.on = False
        outcome = "accepted" if error is None else type(error).__name__
        self.outcomes[outcome] += 1
        taken, before = self._taken(), self.peak
        self.peak = max(taken, before)
        fault = self._fault(error, taken - before)
        if fault:
            frames = traceback.extract_tb(error.__traceback__) if error else []
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            key = f"{fault}: {outcome} {where}".strip()
            if key not in self.faults:
                name = f"fault-{hashlib.sha256(content).hexdigest()[:12]}"
                (self.kept / name).write_bytes(content)
                self.faults[key] = {"count": 0, "input": name, "error": f"{error!r:.500}"}
            self.faults[key]["count"] += 1
        elif error is not None:
            text = str(error).replace(str(self.folder), "")[:400]
            text = re.sub(r"'[^']*'|\"[^\"]*\"|[-\d.]+|\[.*", "#", text, flags=re.DOTALL)
            self.messages.add(f"{outcome}: {text[:120]}")

    def _fault(self, error: BaseException | None, grown: int) -> str:
        if self.watch.seen:
            return f"not allowed, {self.watch.seen[0].split()[0]}"
        if grown > MOST_TAKEN:
            return "memory taken"
        if isinstance(error, Hang):
            return "no answer"
        if error is not None and not isinstance(error, self.target.errors):
            return "not documented"
        if error is not None and self.target.named and str(self.folder) not in str(error):
            return "names no file"
        link = error
        while link is not None:
            # Python's parser says so of what is nested too deep.
            if isinstance(link, MemoryError) and "too complex" not in str(link):
                return "memory asked for"
            link = link.__cause__ or link.__context__
        return ""

    def result(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "outcomes": dict(self.outcomes),
            "messages": sorted(self.messages),
            "faults": self.faults,
            "growth": self.peak - self.start,
        }

    def mutation(self) -> Callable[[bytes, random.Random], bytes]:
        """Bytes as they stand, or what a container holds."""
        from tests.stress.fuzz_mutations import mutate  # not before atheris

        target = self.target

        def plain(content: bytes, rng: random.Random) -> bytes:
            return mutate(content, rng, target.tokens, self.seeds)

        def both(content: bytes, rng: random.Random) -> bytes:
            if target.inside is not None and rng.random() < 0.6:
                return target.inside(content, rng, plain)[: target.most]
            return plain(content, rng)[: target.most]

        return both


def run_by_mutation(run: Run, inputs: int, seed: int) -> None:
    """Valid inputs and what was made of them before, changed again."""
    rng, change = random.Random(seed), run.mutation()
    pool = list(run.seeds)
    for _ in range(inputs):
        content = change(rng.choice(pool if rng.random() < 0.5 else run.seeds), rng)
        before = len(run.outcomes) + len(run.messages)
        run(content)
        if len(run.outcomes) + len(run.messages) > before and len(pool) < 1000:
            pool.append(content)  # it was answered as none before


def run_by_coverage(
    run: Run, inputs: int, seed: int, corpus: Path, done: Callable[[], None]
) -> None:
    """Under atheris, which ends the process."""
    import atheris

    change = run.mutation()
    for index, content in enumerate(run.seeds):
        (corpus / f"seed-{index}").write_bytes(content)

    def custom(content: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(content, most))
        return change(content, rng)[:most]

    def once(content: bytes) -> None:
        run(content)
        if run.inputs >= inputs:
            done()
            os._exit(0)

    options = [f"-seed={seed + 1}", f"-max_len={run.target.most}", "-rss_limit_mb=0", "-timeout=0"]
    options += ["-verbosity=0", "-print_funcs=0", "-reload=0", "-detect_leaks=0", "-handle_segv=0"]
    options += ["-malloc_limit_mb=0", "-keep_seed=1", "-use_cmp=0", "-print_pcs=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once, custom_mutator=custom)
    atheris.Fuzz()


def work(args: argparse.Namespace) -> None:
    """One part: the result goes to ``args.result``."""
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")
    instrumented: Any = contextlib.nullcontext()
    if args.engine == "atheris":
        import atheris

        options: Any = {"include": INSTRUMENTED, "enable_loader_override": False}
        instrumented = atheris.instrument_imports(**options)
    with instrumented, open(os.devnull, "w") as silent, contextlib.redirect_stderr(silent):
        import torch

        from tests.stress import fuzz_targets as targets
    torch.set_num_threads(1)
    __import__("logging").disable()
    kept = args.work / args.target
    with scratch() as folder:
        run = Run(targets.TARGETS[args.target], folder, kept, lambda: targets.writing)
        run.limit()

        def done() -> None:
            beside = args.result.with_name(args.result.name + ".part")
            beside.write_text(json.dumps(run.result()))
            beside.replace(args.result)
            shutil.rmtree(folder, ignore_errors=True)

        if args.engine == "atheris":
            corpus = kept / "corpus"
            corpus.mkdir(exist_ok=True)
            run_by_coverage(run, args.inputs, args.seed, corpus, done)
        run_by_mutation(run, args.inputs, args.seed)
        done()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)


def main() -> None:
    """The command that fuzz.py starts; nothing that atheris watches is imported before."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--target", "--engine"):
        parser.add_argument(name)
    for name in ("--inputs", "--seed"):
        parser.add_argument(name, type=int)
    for name in ("--work", "--result"):
        parser.add_argument(name, type=Path)
    work(parser.parse_args())


if __name__ == "__main__":
    main()
