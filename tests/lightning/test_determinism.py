"""The same seed, machine and threads: the same bits, in another process too."""

import json
from pathlib import Path

import pytest

from tests.processes import run_python

SCRIPT = Path(__file__).with_name("repeated.py")
MODELS = ("gtc", "freedom", "lightgcn")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[dict]:
    """Of two processes, in which strings hash differently."""
    found = []
    for seed in (1, 2):
        out = tmp_path_factory.mktemp(f"process{seed}")
        done = run_python(SCRIPT, out, PYTHONHASHSEED=str(seed))
        assert done.returncode == 0, done.stderr
        found.append(json.loads((out / "report.json").read_text()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("graph", ["whole graph", "mini-batches"])
@pytest.mark.parametrize("model", MODELS)
def test_weights_histories_and_lists_are_the_same_bits(reports, model, graph, threads):
    key = f"{model}, {graph}, {threads} threads"
    if key not in reports[0]:
        pytest.skip("neighbours are sampled by torch-sparse")
    first, second = (report[key] for report in reports)
    for part in ("weights", "history", "test", "lists"):
        assert first[part] == second[part], part


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_result_rows_are_the_same_but_for_times(reports, threads):
    first, second = (report[f"rows, {threads} threads"] for report in reports)
    assert len(first) == 2 * 24 and first == second


@pytest.mark.slow
def test_metrics_of_the_same_weights_do_not_depend_on_threads(reports):
    for key, run in reports[0].items():
        if not key.startswith("rows"):
            one, *others = run["by_threads"].values()
            assert one["Recall@20"] > 0
            for other in others:
                assert other == pytest.approx(one, abs=1e-6), key
