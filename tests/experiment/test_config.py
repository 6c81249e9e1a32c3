r"""What a file of settings comes to; wrong ones are in ``tests/bad_data/settings.py``."""

from dataclasses import replace
from pathlib import Path

import torch

from gtc_pyg.experiment import DEFAULTS, Settings, build_model
from gtc_pyg.experiment.config import read_settings

TEXT = """
gtc:  # the others are as they were
  lr: 2e-3
  modalities: [text]
  model: {score_scale: 2, item_bias: true, filter_channels: null, edge_dropout: 0}
lightgcn: {epochs: 7, weight_averaging: 5.0e-1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_the_file_goes_before_the_settings_argument_by_argument(dataset, tmp_path):
    base = {
        "gtc": Settings(lr=0.1, epochs=9, model={"num_negatives": 4, "edge_dropout": 0.5}),
        "freedom": Settings(epochs=3),
    }
    found = read_settings(write(tmp_path, TEXT), base)
    model = {
        "num_negatives": 4,
        "edge_dropout": 0.0,
        "score_scale": 2.0,
        "item_bias": True,
        "filter_channels": None,
    }
    assert found == {
        "gtc": Settings(lr=0.002, epochs=9, modalities=["text"], model=model),
        "freedom": base["freedom"],
        "lightgcn": replace(DEFAULTS["lightgcn"], epochs=7, weight_averaging=0.5),
    }
    assert type(found["gtc"].model["score_scale"]) is float
    assert base["gtc"].model == {"num_negatives": 4, "edge_dropout": 0.5}
    build_model("gtc", dataset, found["gtc"].modalities, **found["gtc"].model)


def test_without_a_base_the_defaults_are_it(tmp_path):
    found = read_settings(write(tmp_path, "gtc: {}\n"))
    assert found == dict(DEFAULTS)


def test_a_bom_and_line_ends_of_windows_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("\ufeffgtc:\r\n  lr: 0.5\r\n".encode())
    assert read_settings(path)["gtc"].lr == 0.5


def test_random_states_stay_as_they_were(tmp_path):
    path, before = write(tmp_path, "gtc: {model: {hidden_channels: 4096}}"), torch.get_rng_state()
    assert read_settings(path)["gtc"].model["hidden_channels"] == 4096
    assert torch.equal(torch.get_rng_state(), before)
