"""Loads crafted folders, each in a process of its own with little memory; prints what happened.

``python -m tests.recommend.folder_attacks <folder>`` saves a recommender there, and prints a JSON
object by the name of the attack: seconds, megabytes that were taken and the error.
"""

import contextlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
import yaml
from safetensors.torch import load_file, save_file

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.models import GTC, ContentFilter
from gtc_pyg.recommend import Recommender, manifest
from gtc_pyg.transforms import ItemKNNGraph

MEMORY = 256 * 2**20


def settings(part=None, **changes):
    def spoil(path):
        config = yaml.safe_load((path / "config.yaml").read_text())
        (config["model"] if part is None else config["model"][part]).update(changes)
        (path / "config.yaml").write_text(yaml.safe_dump(config))

    return spoil


def text(content):
    return lambda path: (path / "config.yaml").write_text(content)


def tensors(**changes):
    def spoil(path):
        save_file({**load_file(path / "model.safetensors"), **changes}, path / "model.safetensors")

    return spoil


def header(content, size=None):
    def spoil(path):
        start = (len(content) if size is None else size).to_bytes(8, "little")
        (path / "model.safetensors").write_bytes(start + content)

    return spoil


def table(name, columns, **options):
    def spoil(path):
        made = pa.table(columns() if callable(columns) else columns)
        options_ = pa.ipc.IpcWriteOptions(**options)
        with (
            pa.OSFile(str(path / name), "wb") as file,
            pa.ipc.new_file(file, made.schema, options=options_) as writer,
        ):
            writer.write_table(made)

    return spoil


def titles(size):
    return lambda: {"item": list(range(20)), "title": ["x" * size] * 20}


def categories():
    indices = pa.array([0] * 20, pa.int32())
    return {"item": list(range(20)), "kind": pa.DictionaryArray.from_arrays(indices, ["x" * 10**7])}


HEAD = "format: gtc-pyg recommender\nformat_version: 2\n"
EMPTY = '{"x":{"dtype":"F32","shape":[0,1000000000000],"data_offsets":[0,0]}}'
MANY = ",".join(f'"x{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(18_000))
ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, ""),
    "long titles, compressed": (
        table("items.arrow", titles(15 * 10**6), compression="zstd"),
        "a compressed table",
    ),
    "2e8 rows": (
        table("users.arrow", {"user": pa.nulls(2 * 10**8)}),
        "users.arrow has 200000000 rows, but there are 20",
    ),
    "1e5 columns": (
        table("items.arrow", {f"c{i}": pa.nulls(20) for i in range(100_000)}),
        "not found",
    ),
    "long categories": (
        table("items.arrow", categories),
        "items.arrow holds more than the folder is large",
    ),
    "hidden_channels: 16000": (
        settings("content_filter", hidden_channels=16_000),
        "the settings make",
    ),
    "channels: 60000": (settings("content_filter", channels=60_000), "the settings make"),
    "num_users: 1e12": (settings(num_users=10**12), "more than anything in the weights"),
    "num_steps: 1e9": (
        settings("content_filter", num_steps=10**9),
        "more than anything in the weights",
    ),
    "50 modalities of 1e6": (
        settings(in_channels={f"m{i}": 10**6 for i in range(50)}),
        "more than anything in the weights",
    ),
    "1000 modalities": (
        settings(in_channels={f"m{i}": 1 for i in range(1000)}),
        "more than 1000 settings",
    ),
    "1e6 layers": (settings(num_layers=10**6), "num_layers is 1000000, more than 64"),
    "1e6 layers on items": (
        settings(num_item_layers=10**6),
        "num_item_layers is 1000000, more than 64",
    ),
    "1e6 steps": (
        settings("content_filter", num_sampling_steps=10**6),
        "num_sampling_steps is 1000000, more than 1000",
    ),
    "1 MB of YAML": (text(HEAD + "a: [" + "[]," * 350_000 + "]"), "more than 16384 bytes"),
    "16 KB of YAML": (text(HEAD + "a: [" + "?," * 8000 + "]"), "'model'"),
    "aliases": (
        text(HEAD + "a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]"),
        "aliases are not read",
    ),
    "a header of 1e12 bytes": (header(b"{}", 10**12), "has 1000000000000 bytes, more than 1048576"),
    "a header of 2 MB": (
        header(b"{" + b" " * 2**21 + b"}"),
        "has 2097154 bytes, more than 1048576",
    ),
    "18,000 tensors": (header(f"{{{MANY}}}".encode()), "has 18000 tensors, more than 10000"),
    "a tensor of no bytes": (header(EMPTY.encode()), "model.prepared is missing"),
    "1e12 users of width 0": (
        tensors(user_emb=torch.empty(10**12, 0), item_emb=torch.empty(20, 0)),
        "no pair of tables",
    ),
}


def attack(path: Path, spoil: Callable[[Path], object]) -> dict[str, object]:
    """What loading does in a process that may take so much memory and no more."""
    place = path.with_name("crafted")
    shutil.copytree(path, place)
    spoil(place)
    manifest.write_sums(place)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun, error = time.process_time(), ""
        try:
            Recommender.load(place)
        except BaseException as caught:
            error = f"{type(caught).__name__}: {caught!s:.300}"
        seconds = time.process_time() - begun
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        found = {"seconds": round(seconds, 2), "megabytes": round(grown, 1), "error": error}
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    shutil.rmtree(place)
    return json.loads(said) if said else {"error": "the process ended"}


def saved(path: Path) -> Path:
    data = PlantedPreferences(20, 20, ["image"], mean_degree=6.0, transform=ItemKNNGraph(k=2))
    widths = {"image": data.features["image"].size(1)}
    return Recommender(GTC(20, 20, widths, ContentFilter(widths, channels=4)), data).save(path)


if __name__ == "__main__":
    path = saved(Path(sys.argv[1]) / "saved")
    with contextlib.suppress(BrokenPipeError):
        print(
            json.dumps(
                {name: attack(path, spoil) for name, (spoil, _) in ATTACKS.items()}, indent=1
            )
        )
