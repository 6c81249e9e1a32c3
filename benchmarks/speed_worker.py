"""What the processes of benchmarks/speed.py do."""

import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.workers import ratios, seconds, status_mib
from speed_counter import StepCounter

OURS = {"gtc": "GTC", "freedom": "FREEDOM", "lightgcn": "LightGCN"}


def our_steps(name: str, data: dict, options: dict) -> Iterator[None]:
    """A step of one of our models at each ``next``, as gtc_pyg.lightning takes it."""
    from gtc_pyg.loader import InteractionLoader
    from gtc_pyg.models.registry import build_model

    settings, sizes = options["settings"][name], (data["num_users"], data["num_items"])
    features, names = data["features"], settings["modalities"]
    names = names or [m for m in features if not m.startswith("has_")]
    given = {"num_users": sizes[0], "num_items": sizes[1]}
    given["in_channels"] = {m: features[m].size(1) for m in names}
    model = build_model({"class": OURS[name], **settings["model"]}, **given).to(options["device"])
    model.prepare(data["edges"], data["weights"], settings["spectral_start"])
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"], fused=True)
    decay = settings["weight_averaging"]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
    loader = InteractionLoader(data["train"], *sizes, options["batch_size"], options["seed"])
    generator = torch.Generator(options["device"]).manual_seed(options["seed"])
    while True:
        graph = model.training_graph(data["edges"], data["weights"], generator)
        for batch in loader:
            parts = model.loss(*batch, features, graph, generator=generator)
            loss = torch.stack(list(parts.values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            yield


def pyg_steps(name: str, data: dict, options: dict) -> Iterator[None]:
    """A step of PyG's LightGCN at each ``next``: two layers, uniform negatives, plain Adam."""
    from torch_geometric.nn import LightGCN

    num_users, num_nodes = data["num_users"], data["num_users"] + data["num_items"]
    train = data["train"] + data["train"].new_tensor([[0], [num_users]])
    adj = torch.cat([train, train.flip(0)], dim=1)
    if name.endswith("_sparse"):
        from torch_sparse import SparseTensor

        adj = SparseTensor.from_edge_index(adj, sparse_sizes=(num_nodes, num_nodes)).t()
        adj.fill_cache_()
    model = LightGCN(num_nodes, 64, 2).to(options["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    while True:
        order = torch.randperm(train.size(1), device=train.device)
        for rows in order.split(options["batch_size"]):
            user, item = train[:, rows]
            negative = torch.randint_like(item, num_users, num_nodes)
            pairs = torch.stack([user.repeat(2), torch.cat([item, negative])])
            ranks = model(adj, pairs).chunk(2)
            loss = model.recommendation_loss(*ranks, pairs.unique())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


class Task:
    """What a worker does when it is asked to: one method for each command."""

    def __init__(self, options: dict) -> None:
        import torch_geometric.nn  # noqa: F401, what is imported is no part of a step

        torch.manual_seed(options["seed"])
        torch.set_num_threads(options["threads"])
        data = torch.load(options["data"], map_location=options["device"], weights_only=True)
        if options["name"] in OURS:
            import gtc_pyg.models  # noqa: F401

            self.steps = our_steps(options["name"], data, options)
        else:
            data = {key: data[key] for key in ("train", "num_users", "num_items")}
            self.steps = pyg_steps(options["name"], data, options)
        self.data, self.cuda = data, torch.device(options["device"]).type == "cuda"
        self.base = self._mib("VmRSS")
        self.spent: tuple[list[float], list[float]] = [], []
        if not self.cuda:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    def _mib(self, field: str) -> float:
        if self.cuda:
            kind = "peak" if field == "VmHWM" else "current"
            return torch.cuda.memory_stats().get(f"allocated_bytes.all.{kind}", 0) / 2**20
        return status_mib(field)  # not ru_maxrss, which a process inherits from its parent

    def time(self, number: int) -> list[float]:
        """Seconds of each of some steps."""
        start = self._spent()
        found = seconds(lambda: next(self.steps), number, 1)
        for i, (before, after) in enumerate(zip(start, self._spent(), strict=True)):
            self.spent[i].append((after - before) / (number + 1))
        return found

    def _spent(self) -> list[float]:
        return [time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt]

    def about(self) -> dict[str, Any]:
        """Peak memory since the data was loaded, what there was then, and what PyG has found.

        Besides CPU seconds of all threads and page faults of a step, medians over turns.
        """
        from torch_geometric import typing

        found = {
            "torch_scatter": typing.WITH_TORCH_SCATTER,
            "torch_sparse": typing.WITH_TORCH_SPARSE,
        }
        return {
            "peak_mib": self._mib("VmHWM"),
            "base_mib": self.base,
            "cpu_s": statistics.median(self.spent[0]),
            "faults": statistics.median(self.spent[1]),
            "extras": [name for name, there in found.items() if there],
        }

    def count(self, number: int) -> dict[str, Any]:
        """Means of a step by group, see :class:`StepCounter`, and its dense products."""
        next(self.steps)
        with StepCounter() as counter:
            for _ in range(number):
                next(self.steps)
        groups = counter.groups.items()
        return {
            "groups": {g: {key: v / number for key, v in row.items()} for g, row in groups},
            "shapes": [[*shape, n / number] for shape, n in counter.shapes.items()],
        }

    def rates(self, shapes: list, square: int, copied: int) -> dict[str, float]:
        """Operations and bytes a second of what a step is made of, each run alone, at its best."""
        from gtc_pyg.functional import stack_interactions, to_csr

        train, users, items = (self.data[key] for key in ("train", "num_users", "num_items"))

        def product(m: int, k: int, n: int) -> float:
            left, right = (torch.rand(x, y, device=train.device) for x, y in ((m, k), (k, n)))
            out = torch.empty(m, n, device=train.device)
            return min(seconds(lambda: torch.mm(left, right, out=out), 3, 1))

        dense = sum(2 * m * k * n * number for m, k, n, number in shapes)
        both = to_csr(train, items, users), to_csr(train.flip(0), users, items)
        adj, x = stack_interactions(*both), torch.rand(users + items, 64, device=train.device)
        out = torch.zeros_like(x)
        csr = min(seconds(lambda: out.addmm_(adj, x, beta=0.0), 3, 1))
        a, b = (torch.rand(copied, device=train.device) for _ in range(2))
        return {
            "dense": dense / sum(number * product(*shape) for *shape, number in shapes),
            "square": 2 * square**3 / product(square, square, square),
            "sparse": 2 * adj.values().numel() * x.size(1) / csr,
            "csr_s": csr,
            "copy": 8 * copied / min(seconds(lambda: b.copy_(a), 3, 1)),
            "fresh_copy": 8 * copied / min(seconds(a.clone, 3, 1)),
        }

    def negatives(self, rounds: int, batch_size: int) -> dict[str, dict[str, float]]:
        """One negative for each training interaction: seconds, ratios to ours, wrong ones."""
        from torch_geometric.utils import structured_negative_sampling

        from gtc_pyg.loader import NegativeSampler

        train, users, items = (self.data[key] for key in ("train", "num_users", "num_items"))
        batches, sampler = train.split(batch_size, dim=1), NegativeSampler(train, users, items)
        known: list[set[int]] = [set() for _ in range(users)]
        for user, item in train.t().tolist():
            known[user].add(item)

        def by_rows() -> torch.Tensor:
            out = []
            for user in train[0].tolist():
                item = random.randrange(items)
                while item in known[user]:
                    item = random.randrange(items)
                out.append(item)
            return train.new_tensor(out)

        def by_structure(edge_index: torch.Tensor) -> torch.Tensor:
            return structured_negative_sampling(edge_index, items)[2]

        methods: dict[str, Callable[[], torch.Tensor]] = {
            "sampler": lambda: torch.cat([sampler(e[0]) for e in batches]),
            "structured": lambda: by_structure(train),
            "structured_batches": lambda: torch.cat([by_structure(e) for e in batches]),
            "row_loop": by_rows,
            "uniform": lambda: torch.cat([torch.randint_like(e[1], items) for e in batches]),
        }
        times: dict[str, list[float]] = {name: [] for name in methods}
        for turn in range(rounds):
            for name in list(methods)[:: 1 - 2 * (turn % 2)]:
                times[name] += seconds(methods[name], 1, 1)
        positive, rows = train[0] * items + train[1], {}
        for name, call in methods.items():
            wrong = torch.isin(train[0] * items + call(), positive).float().mean()
            rows[name] = {
                "seconds": statistics.median(times[name]),
                "ratio": ratios(times[name], times["sampler"]),
                "wrong": float(wrong),
            }
        return rows

    def profile(self, number: int) -> str:
        """torch.profiler's table of the slowest operators."""
        with torch.profiler.profile() as profiler:
            for _ in range(number):
                next(self.steps)
        return profiler.key_averages().table("self_cpu_time_total", 20, max_name_column_width=40)


def main(options: dict[str, Any]) -> Task:
    return Task(options)
