"""What kill_resume.py kills: processes that say through a pipe what they are doing."""

import csv
import hashlib
import itertools
import json
import multiprocessing
import statistics
import sys
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gtc_pyg import experiment
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import NAMES, Settings, build_model, command
from gtc_pyg.lightning import RecommenderModule, fit
from gtc_pyg.lightning.checkpoints import CheckpointFiles
from gtc_pyg.recommend import Recommender, lists
from gtc_pyg.transforms import ItemKNNGraph

WHOLE, SAMPLED = "whole graph", "mini-batches"
COMMAND, LISTS = "command with --out", "streamed lists"
TRAINED = {
    f"{NAMES[model]}, {graph}": (model, graph)
    for model in ("gtc", "freedom", "lightgcn")
    for graph in (WHOLE, SAMPLED)
}
COSTS = ("seconds_per_epoch", "peak_mib", "commit", "versions")
EPOCHS, PATIENCE_SECONDS = 6, 120
Say = Callable[[str], None]
Outcome = dict[str, str]


def tell(owner: Any, name: str, kind: str, say: Say) -> None:
    """Lets a function say when it begins and that it is through."""
    function = getattr(owner, name)

    def told(*arguments: Any, **options: Any) -> Any:
        say(f"{kind} begins")
        try:
            return function(*arguments, **options)
        finally:
            say("other")

    setattr(owner, name, told)


def watch(say: Say) -> None:
    """Lets the process say what it is doing, down to files opened and renamed."""
    for hook, text in (("start", "step"), ("end", "other")):
        setattr(RecommenderModule, f"on_train_batch_{hook}", lambda *_, text=text: say(text))
    for hook, text in (("start", "evaluation"), ("end", "other")):
        setattr(RecommenderModule, f"on_validation_{hook}", lambda *_, text=text: say(text))
    tell(CheckpointFiles, "save_checkpoint", "checkpoint", say)
    tell(command, "_append_once", "rows", say)
    tell(lists, "write_lists", "lists", say)
    warnings.showwarning = lambda message, *_: say(f"warned {message}")

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and str(arguments[0]).endswith(".part"):
            name = Path(str(arguments[0])).name.removesuffix(".part")
            kind = "checkpoint" if ".ckpt" in name else "rows" if name == "rows.csv" else "lists"
            name = name if kind != "lists" else "all" if "joined" in name else "a part"
            say(f"{kind} {'opens' if event == 'open' else 'renames'} {name}")

    sys.addaudithook(audit)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def do(task: str, folder: Path, seed: int) -> Outcome:
    """One task, gone on with in its folder; all that must be the same at the end."""
    data = PlantedPreferences(60, 40, seed=seed, mean_degree=8.0, transform=ItemKNNGraph(k=5))
    if task in TRAINED:
        name, graph = TRAINED[task]
        torch.manual_seed(seed)
        gtc = name == "gtc"
        settings = {"content_filter": {"channels": 16}} if gtc else {"hidden_channels": 16}
        if name != "lightgcn":
            settings["edge_dropout"] = 0.0 if graph == SAMPLED else 0.3
        options: dict[str, Any] = {"lr": 0.01, "epochs": EPOCHS, "batch_size": 100, "patience": 3}
        options |= {"seed": seed, "weight_averaging": 0.8 if name == "gtc" else 0.0}
        options |= {"num_neighbors": [4, 3, 3] if graph == SAMPLED else None}
        model = build_model(name, data, **settings)
        result = fit(model, data, out=folder, resume=True, progress=False, **options)
        weights = {k: digest(x.numpy().tobytes()) for k, x in result.model.state_dict().items()}
        reported = {key: getattr(result, key) for key in ("history", "best_epoch", "val", "test")}
        log = folder / "logs" / "model" / "metrics.csv"
        return {**weights, **{k: repr(v) for k, v in reported.items()}, "log": log.read_text()}
    if task == COMMAND:
        settings = {"freedom": Settings(epochs=2), "lightgcn": Settings(epochs=2, batch_size=100)}
        out = folder / "rows.csv"
        given = f"--seed {seed} {seed + 1} --quiet --resume --logs {folder} --out {out}".split()
        experiment.run("planted", data, settings, experiment.parse_args(None, argv=given))
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {"rows": json.dumps([{k: r[k] for k in r if k not in COSTS} for r in rows])}
    torch.manual_seed(seed)
    recommender = Recommender(build_model("lightgcn", data, hidden_channels=16), data)
    path = folder / "lists.csv"
    recommender.write(path, k=5, users_at_once=3, progress=False)
    return {"lists": path.read_text(), "files": str(sorted(p.name for p in folder.iterdir()))}


def work(task: str, folder: Path, seed: int, told: Connection) -> None:
    """What a process does that may be killed."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own leaves a semaphore behind when killed

    def say(text: str) -> None:
        told.send_bytes(text.encode())

    watch(say)
    sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a")  # noqa: SIM115
    say("done " + json.dumps(do(task, folder, seed)))


class Process:
    """A process at work, and what it said and when."""

    def __init__(self, task: str, folder: Path, seed: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self.told, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(task, folder, seed, theirs), daemon=True)
        self.said: list[tuple[float, str]] = []
        self.outcome: Outcome | None = None
        self.start = time.perf_counter()
        self.process.start()
        theirs.close()

    def listen(self, wait: float) -> str | None:
        """The next thing it says; nothing once it is dead."""
        try:
            if not self.told.poll(wait):
                return None
            text = self.told.recv_bytes().decode()
        except (EOFError, OSError):
            return None
        if text.startswith("done "):
            self.outcome = json.loads(text[5:])
            text = "other"
        self.said.append((time.perf_counter() - self.start, text))
        return text

    def finish(self) -> None:
        """Lets it finish."""
        while self.listen(PATIENCE_SECONDS) is not None:
            pass
        self.process.join(PATIENCE_SECONDS)
        self.process.kill()

    def kill_at(self, moment: str, number: int, delays: Mapping[str, float], share: float) -> bool:
        """Kills it after a share of the time that its ``number``-th such moment takes."""
        while (text := self.listen(PATIENCE_SECONDS)) is not None:
            number -= text.split()[0] == moment
            if number == 0:
                time.sleep(share * delays.get(kind_of(text), 0.001))
                break
        self.process.kill()
        while self.listen(0) is not None:
            pass
        self.process.join()
        return self.outcome is None and self.process.exitcode == -9


def kind_of(text: str) -> str:
    """A moment without the name of a process in a file's name."""
    return " ".join(text.split()[:2])


def durations(said: Sequence[tuple[float, str]]) -> dict[str, float]:
    """How long each thing took that a process said, median."""
    found = defaultdict(list)
    for (start, text), (end, _) in itertools.pairwise(said):
        found[kind_of(text)].append(end - start)
    return {text: statistics.median(times) for text, times in found.items()}
