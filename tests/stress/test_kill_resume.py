"""A few live kills, and that the harness notices what does not hold."""

import random

import pytest
import torch

from benchmarks.harness import read_rows
from gtc_pyg.lightning.checkpoints import DamagedCheckpointError, read_checkpoint
from tests.stress import kill_resume
from tests.stress.kill_resume import PAGE, ROWS, TRAINED, Chain, Process, damage, report, torn


@pytest.mark.slow
def test_killed_processes_end_as_one_that_was_not(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    names = ["LightGCN, whole graph", kill_resume.LISTS]
    assert kill_resume.main(["--kills", "5", "--tasks", *names, "--out", str(out)]) == 0
    rows = read_rows(out)
    assert [row["kill"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert all(row["held"] == "1" and row["moment"] in kill_resume.MOMENTS for row in rows)
    printed = capsys.readouterr()
    assert "5 kills in" in printed.out and "all held" in printed.out
    assert "kill 5 of 5" in printed.err


def test_another_end_and_a_failure_are_noticed(tmp_path):
    whole = Process.__new__(Process)
    whole.said, whole.outcome = [(0.0, "step"), (1.0, "other")], {"weights": "a", "history": "b"}
    chain = Chain("LightGCN, whole graph", tmp_path / "run", 0, whole)
    other = Process.__new__(Process)
    other.said, other.outcome = [], {"weights": "a", "history": "c"}
    chain.compare(other)
    assert chain.wrong == ["history is not what it is without a kill"]
    chain.spoiled, chain.warned = b"cut", False
    other.said, other.outcome = [(0.0, "step")], whole.outcome
    chain.compare(other)
    assert chain.wrong[1:] == ["a damaged checkpoint was not warned of"]


def test_torn_files_are_noticed(tmp_path):
    path = tmp_path / "checkpoints" / "model" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"epoch": 0, "weight": torch.rand(500)}, path)
    (tmp_path / "rows.csv").write_text("value\n" + "1\n" * 24)
    assert torn(tmp_path) == []
    kinds = {damage(path, random.Random(i)) for i in range(8)}
    assert kinds == {"cut", "overwritten"}
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(path)
    (tmp_path / "rows.csv").write_text("value\n" + "1\n" * 23)
    (tmp_path / "lists.csv").write_text("user,rank,item,score\n")
    found = torn(tmp_path)
    assert len(found) == 3 and "last.ckpt is damaged" in found[0]
    assert torn(tmp_path, path.read_bytes()) == found[1:]


def test_the_table_counts_kills_by_moment():
    row = {"task": "a", "moment": "step", "damaged": "no", "held": "1"}
    rows = [row, row | {"moment": "checkpoint", "damaged": "cut"}, row | {"task": "b", "held": "0"}]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in report(rows).splitlines()]
    assert lines[2] == ["a", "1", "0", "1", "0", "0", "0", "1", "2 of 2"]
    assert lines[4] == ["all", "2", "0", "1", "0", "0", "0", "1", "2 of 3"]


def test_the_page_shows_the_committed_rows():
    if not ROWS.exists():
        pytest.skip("no rows are committed yet")
    rows = read_rows(ROWS)
    assert report(rows) in PAGE.read_text()
    assert {row["task"] for row in rows} >= set(TRAINED) and len(rows) >= 60
