"""Tables of docs/speed.md from the committed results; ``benchmarks/speed.py --report`` writes."""

import json
from typing import Any

from harness import DOCS, RESULTS, markdown

PAGE = DOCS / "speed.md"
TITLES = {
    "gtc": "GTC",
    "freedom": "FREEDOM",
    "lightgcn": "LightGCN, ours",
    "pyg_lightgcn": "LightGCN of PyG, `edge_index`",
    "pyg_lightgcn_bare": "... without torch-scatter and torch-sparse",
    "pyg_lightgcn_sparse": "... with `SparseTensor`",
    "sampler": "`NegativeSampler`, by batches",
    "structured": "`structured_negative_sampling`, all at once",
    "structured_batches": "`structured_negative_sampling`, by batches",
    "row_loop": "a Python loop over rows",
    "uniform": "`randint`, by batches",
}


def steps_table(result: dict[str, Any]) -> str:
    """Time and memory of each model."""
    head = ["", "step, ms (quartiles)", "of PyG's (quartiles)", "peak, MiB", "of PyG's"]
    head.append("page faults")
    body = []
    for name, row in result["models"].items():
        step = _spread({key: 1000 * row[key] for key in ("step_s", "q1", "q3")}, 1)
        ratio = result["ratios"][name]
        memory = f"{row['peak_mib']:.0f}", f"{ratio['memory']:.2f}", f"{row['faults']:.0f}"
        body.append([TITLES[name], step, _spread(ratio), *memory])
    return markdown(head, body)


def cost_table(results: list[dict[str, Any]]) -> str:
    """For the README: a step of the models that all results have, without quartiles."""
    heads = [f"{r['dataset']}{', memory kept' * (r['malloc'] != 'default')}" for r in results]
    body = []
    for name in list(TITLES)[:4]:
        cells = []
        for result in results:
            row, ratio = result["models"][name], result["ratios"][name]
            step = f"{1000 * row['step_s']:.0f} ms ({ratio['median']:.2f})"
            cells.append(f"{step}, {row['peak_mib']:.0f} MiB")
        body.append([TITLES[name], *cells])
    return markdown(["", *heads], body)


def floor_table(result: dict[str, Any]) -> str:
    """Operations, bytes, rates and the floor they make."""
    rates = result["rates"]
    rows = [
        ("operations of a step", result["flops"] / 1e9, "10^9"),
        ("bytes of a step", result["bytes"] / 1e6, "MB"),
        ("dense products of its shapes", rates["dense"] / 1e9, "GFLOP/s"),
        ("one large square product", rates["square"] / 1e9, "GFLOP/s"),
        ("CSR product, whole graph, 64 columns", 1000 * rates["csr_s"], "ms"),
        ("the same", rates["sparse"] / 1e9, "GFLOP/s"),
        ("copy, read and written", rates["copy"] / 1e9, "GB/s"),
        ("copy into fresh memory", rates["fresh_copy"] / 1e9, "GB/s"),
        ("products alone", 1000 * result["floor_products_s"], "ms"),
        ("bytes alone", 1000 * result["floor_bytes_s"], "ms"),
        ("**floor**, the larger", 1000 * result["floor_s"], "ms"),
        ("their sum", 1000 * result["floor_sum_s"], "ms"),
    ]
    ratio = ["step / floor (quartiles)", _spread(result["floor_ratio"])]
    body = [[name, f"{value:.3g} {unit}"] for name, value, unit in rows]
    return markdown(["", ""], [*body, ratio])


def groups_table(result: dict[str, Any]) -> str:
    """Where the time of GTC's step goes, and how much of each part is floor."""
    rates, step = result["rates"], result["models"]["gtc"]["step_s"]
    body, rest = [], step
    for name, row in sorted(result["groups"].items(), key=lambda item: -item[1]["seconds"]):
        least = row["flops"] / rates[name.split()[0]] if row["flops"] else 0.0
        body.append([name, f"{row['calls']:.0f}", *_shares(row["seconds"], least, step)])
        rest -= row["seconds"]
    body.append(["Python and dispatch (the rest)", "", *_shares(rest, 0.0, step)])
    return markdown(["", "calls", "ms", "of the step", "floor, ms"], body)


def negatives_table(result: dict[str, Any]) -> str:
    """What negatives cost, and how many of them are known positives."""
    if not result["negatives"]:
        return "Not measured."
    head = ["a negative for each training interaction", "ms", "of ours (quartiles)", "wrong"]
    body = [
        [TITLES[name], f"{1000 * row['seconds']:.1f}", _spread(row["ratio"]), f"{row['wrong']:.2%}"]
        for name, row in result["negatives"].items()
    ]
    return markdown(head, body)


TABLES = {
    "steps": steps_table,
    "floor": floor_table,
    "groups": groups_table,
    "negatives": negatives_table,
}


def _spread(row: dict[str, float], digits: int = 2) -> str:
    """Of a median and its quartiles, the first three entries."""
    middle, q1, q3 = (f"{value:.{digits}f}" for value in list(row.values())[:3])
    return f"{middle} ({q1} to {q3})"


def _shares(seconds: float, least: float, step: float) -> list[str]:
    return [f"{1000 * seconds:.1f}", f"{seconds / step:.0%}", f"{1000 * least:.1f}"]


def title(result: dict[str, Any]) -> str:
    """What was measured, on what."""
    machine, malloc = result["machine"], result["malloc"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    memory = "glibc's defaults" if malloc == "default" else "glibc keeps freed memory"
    return f"**{result['dataset']}**, {threads} ({machine['cpu']}), {memory}"


def texts(results: list[dict[str, Any]]) -> dict[str, str]:
    return {
        name: "\n\n".join(f"{title(result)}\n\n{table(result)}" for result in results)
        or "Not measured yet."
        for name, table in TABLES.items()
    }


def read_results() -> list[dict[str, Any]]:
    """The committed ones, ``benchmarks/results/speed-*.json``."""
    paths = sorted(RESULTS.glob("speed-*.json"), key=lambda path: path.stem)
    return [json.loads(path.read_text()) for path in paths]
