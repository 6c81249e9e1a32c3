"""Every example runs, on little data, as a user would start it."""

import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from gtc_pyg.recommend import Recommender

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("GTC_PYG_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="GTC_PYG_DATA names no folder of real data")


def start(script: str, *options: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, options)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_prints_a_table_and_draws_two_pictures(tmp_path):
    out = start("quickstart.py", "--epochs", 2, "--quiet", "--logs", tmp_path)
    rows = [line.split()[0] for line in out.splitlines() if line.count("0.") == 12]
    assert rows == ["SpectralFilter", "LightGCN", "FREEDOM", "GTC"]
    for name in ("validation_curves.png", "user_relevance.png"):
        assert (tmp_path / "quickstart" / name).stat().st_size > 10_000


def test_plain_loop_reports_the_best_epoch_on_test(tmp_path):
    out = start("plain_loop.py", "--epochs", 2, "--save", tmp_path / "saved")
    assert Recommender.load(tmp_path / "saved").recommend(3, k=2)["rank"].tolist() == [1, 2]
    assert out.startswith("best epoch ")
    assert out.count("@20") == 5


@pytest.mark.parametrize(
    ("script", "gain"),
    [("total_correlation_graphsage.py", 0.05), ("denoise_node_features.py", -0.1)],
)
def test_a_layer_in_a_foreign_model_helps(script, gain):
    path = ROOT / "examples" / script
    assert len(path.read_text().splitlines()) <= 60
    *_, without, with_it = (float(line.split()[-1]) for line in start(script).splitlines())
    assert (with_it - without) / gain > 1, (without, with_it)


@needs_data
@pytest.mark.parametrize("name", ["tiktok", "lfm2k", "baby"])
def test_real_data_gives_rows_under_the_public_header(name, tmp_path):
    out, root = tmp_path / "rows.csv", tmp_path / name
    root.mkdir()
    (root / "raw").symlink_to(Path(str(DATA)) / name / "raw")
    options = ("--models", "lightgcn", "--epochs", 1, "--threads", 1, "--quiet")
    start(f"{name}.py", "--root", root, *options, "--out", out, "--logs", tmp_path)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["dataset"], row["model"], row["preset"]) for row in rows} == {
        (name, "lightgcn", "default")
    }
    assert len(rows) == 2 * 4 * 3


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("examples/*.py")))
def test_help_teaches(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"examples/{script}", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "python examples/" in out
    assert "--seed" in out
