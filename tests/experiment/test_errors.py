r"""Errors for the user are one line and the exit status 2; faults of a program keep their trace."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gtc_pyg.datasets import MMRecFolder, PlantedPreferences
from gtc_pyg.experiment.errors import one_line_errors
from gtc_pyg.lightning import fit
from gtc_pyg.lightning.checkpoints import CheckpointFiles
from gtc_pyg.models import LightGCN


def stopped(call, capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        call()
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_what_the_package_or_the_system_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["examples/mine.py"])
    found = stopped(lambda: PlantedPreferences(num_items=3), capsys)
    assert found == "mine.py: error: num_items must be at least 20, got 3\n"
    found = stopped(lambda: MMRecFolder(tmp_path, "toy"), capsys)
    assert found.startswith("mine.py: error: missing file 'toy.inter': expected in the folder")
    found = stopped(lambda: (tmp_path / "no").read_text(), capsys)
    assert found.startswith("mine.py: error: [Errno 2] No such file or directory: ")
    assert found.count("\n") == 1


def test_a_second_process_of_a_run_is_one_line(tmp_path, capsys):
    files = CheckpointFiles(tmp_path / "mine")
    with files.claimed():
        found = stopped(lambda: CheckpointFiles(files.folder).claimed().__enter__(), capsys)
    assert str(files.folder) in found and found.count("\n") == 1


def test_weights_that_are_not_finite_are_one_line(tmp_path, capsys):
    dataset = PlantedPreferences(60, 40, mean_degree=8.0)
    options = {"lr": 1e38, "epochs": 1, "progress": False, "out": tmp_path}
    options |= {"weight_averaging": 0.0, "spectral_start": False, "batch_size": 2048}
    found = stopped(lambda: fit(LightGCN(60, 40, 8), dataset, **options), capsys)
    assert "user_emb.weight, item_emb.weight hold numbers that are not finite" in found
    assert found.count("\n") == 1


def test_a_fault_of_another_program_keeps_its_type():
    with pytest.raises(ValueError, match="broadcast"), one_line_errors():
        np.ones(2) + np.ones(3)
    with pytest.raises(KeyError), one_line_errors():
        {}["a"]
    with pytest.raises(RuntimeError, match="shape"), one_line_errors():
        torch.ones(2).view(3)


def test_with_dev_mode_every_error_keeps_its_trace(monkeypatch):
    monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
    with pytest.raises(ValueError, match="num_items"), one_line_errors():
        PlantedPreferences(num_items=3)


def test_no_error_is_no_exit():
    with one_line_errors():
        assert PlantedPreferences(num_users=20, num_items=30, mean_degree=6).num_users == 20
