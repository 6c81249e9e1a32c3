r"""What a file of settings comes to; wrong ones are in ``tests/bad_data/settings.py``."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gtc_pyg.experiment import DEFAULTS, Settings, build_model
from gtc_pyg.experiment.config import read_settings

TEXT = """
gtc:  # the others are as they were
  lr: 2e-3
  modalities: [text]
  model:
    ranking: {scale: 2}
    content_filter: {hidden_channels: null, strength: 1}
    alignment: null
    heads: [{class: SpectralHead, channels: 4}, {class: ItemBias}]
    edge_dropout: 0
lightgcn: {epochs: 7, weight_averaging: 5.0e-1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_the_file_goes_before_the_settings_argument_by_argument(dataset, tmp_path):
    ranking = {"class": "SampledSoftmax", "num_negatives": 4}
    given = {"ranking": ranking, "heads": [{"class": "ItemBias"}], "edge_dropout": 0.5}
    before = copy.deepcopy(given)
    base = {
        "gtc": Settings(lr=0.1, epochs=9, model=given),
        "freedom": Settings(epochs=3),
    }
    found = read_settings(write(tmp_path, TEXT), base)
    model = {
        "ranking": {"class": "SampledSoftmax", "num_negatives": 4, "scale": 2.0},
        "heads": [{"class": "SpectralHead", "channels": 4}, {"class": "ItemBias"}],
        "edge_dropout": 0.0,
        "content_filter": {"hidden_channels": None, "strength": 1.0},
        "alignment": None,
    }
    assert found == {
        "gtc": Settings(lr=0.002, epochs=9, modalities=["text"], model=model),
        "freedom": base["freedom"],
        "lightgcn": replace(DEFAULTS["lightgcn"], epochs=7, weight_averaging=0.5),
    }
    assert type(found["gtc"].model["ranking"]["scale"]) is float
    assert base["gtc"].model == before
    built = build_model("gtc", dataset, found["gtc"].modalities, **found["gtc"].model)
    assert built.ranking.num_negatives == 4 and built.ranking.scale == 2.0
    assert built.alignment is None and built.content_filter.strength == 1.0


def test_a_part_of_another_class_begins_with_its_defaults(tmp_path):
    text = "gtc: {model: {ranking: {class: BPR, scale: 3}}}"
    assert read_settings(write(tmp_path, text))["gtc"].model["ranking"] == {
        "class": "BPR",
        "scale": 3.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranking: {class: [BPR]}", r"line 1: gtc.model.ranking.class is a list, expected Sampled"),
        ("ranking: {class: {BPR: 1}}", r"line 1: gtc.model.ranking.class is a mapping, expected"),
        ("class: LightGCN", r"line 1: unknown key 'class' in gtc.model \(expected"),
        ("edge_dropout: 0x" + "F" * 9000, r"line 1: gtc.model.edge_dropout cannot be read"),
        ("x" * 1000 + ": 1", r"line 1: unknown key 'x{79} in gtc.model"),
    ],
    ids=["class of a list", "class of a mapping", "class of the model", "long number", "long key"],
)
def test_what_is_no_setting_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_settings(write(tmp_path, f"gtc: {{model: {{{text}}}}}"))


def test_without_a_base_the_defaults_are_it(tmp_path):
    found = read_settings(write(tmp_path, "gtc: {}\n"))
    assert found == dict(DEFAULTS)


def test_a_bom_and_line_ends_of_windows_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("\ufeffgtc:\r\n  lr: 0.5\r\n".encode())
    assert read_settings(path)["gtc"].lr == 0.5


def test_random_states_stay_as_they_were(tmp_path):
    path, before = (
        write(tmp_path, "lightgcn: {model: {hidden_channels: 4096}}"),
        torch.get_rng_state(),
    )
    assert read_settings(path)["lightgcn"].model["hidden_channels"] == 4096
    assert torch.equal(torch.get_rng_state(), before)
