"""A run that was interrupted anywhere goes on to the same end, bit for bit."""

import csv
import random
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gtc_pyg.lightning import training
from gtc_pyg.models import FREEDOM, LightGCN


class Interrupted(Exception):
    """Stands for SIGKILL."""


class InterruptAt(Callback):
    """Raises in a hook of an epoch, a step of it or none."""

    def __init__(self, hook, epoch, step=None):
        def interrupt(trainer, *arguments):
            if trainer.current_epoch == epoch and step in (None, *arguments[2:3]):
                raise Interrupted

        setattr(self, hook, interrupt)


def lightgcn(dataset, **options):
    torch.manual_seed(0)
    return LightGCN(dataset.num_users, dataset.num_items, 8, **options)


def freedom(dataset, **options):
    torch.manual_seed(0)
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    return FREEDOM(dataset.num_users, dataset.num_items, widths, 8, **options)


def parts_of(result):
    """All of a result but times."""
    weights = {name: x.tolist() for name, x in result.model.state_dict().items()}
    return weights, result.history, result.best_epoch, result.val, result.test


def logged(folder):
    """The CSV log, and what TensorBoard shows."""
    with (folder / "logs/model/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(folder / "tensorboard/model")).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("test/")]
    return rows, {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


MAKERS = {
    "gtc": lambda dataset, make_gtc: make_gtc(dataset, edge_dropout=0.3),
    "gtc-sampled": lambda dataset, make_gtc: make_gtc(dataset),
    "freedom": lambda dataset, make_gtc: freedom(dataset, edge_dropout=0.3),
    "lightgcn": lambda dataset, make_gtc: lightgcn(dataset),
    "lightgcn-sampled": lambda dataset, make_gtc: lightgcn(dataset),
}
KEPT = ("best.ckpt", "last.ckpt", "previous.ckpt")
MOMENTS = [
    ("on_validation_batch_start", 1, None),
    ("on_train_batch_start", 2, 1),
    ("on_train_epoch_end", 2, None),
    ("on_test_epoch_end", 4, None),
]


@pytest.mark.parametrize("name", MAKERS)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    dataset, tmp_path, make_gtc, train, request, name
):
    def fitted(out, **options):
        if name.endswith("sampled"):
            options["num_neighbors"] = request.getfixturevalue("sampling")
        if name.startswith("gtc"):
            options["weight_averaging"] = 0.8
        model = MAKERS[name](dataset, make_gtc)
        return train(model, dataset, tmp_path / out, batch_size=200, **options)

    whole = fitted("whole")
    for moment in MOMENTS:
        with pytest.raises(Interrupted):
            fitted("interrupted", resume=True, callbacks=[InterruptAt(*moment)])
    result = fitted("interrupted", resume=True)
    assert parts_of(result) == parts_of(whole)
    assert len(result.seconds) == len(result.evaluation_seconds) == 4
    assert logged(tmp_path / "interrupted") == logged(tmp_path / "whole")


class Drawing(LightGCN):
    """Draws from the global streams, as a model of somebody else may."""

    def loss(self, *args, **kwargs):
        parts = super().loss(*args, **kwargs)
        drawn = float(torch.rand(())) + np.random.random() + random.random()  # noqa: NPY002
        return {**parts, "drawn": drawn * self.user_emb.weight.pow(2).mean()}


def test_global_random_streams_go_on(dataset, tmp_path, train):
    def fitted(out, **options):
        torch.manual_seed(0)
        return train(Drawing(60, 40, 8), dataset, tmp_path / out, **options)

    whole = fitted("whole")
    with pytest.raises(Interrupted):
        fitted("interrupted", callbacks=[InterruptAt("on_train_batch_start", 2, 1)])
    assert parts_of(fitted("interrupted", resume=True)) == parts_of(whole)


def test_early_stopping_goes_on_counting_and_stays_ended(
    dataset, tmp_path, train, capsys, monkeypatch
):
    options = {"lr": 0.0, "epochs": 30, "patience": 3, "resume": True}
    with pytest.raises(Interrupted):
        interrupt = InterruptAt("on_train_epoch_start", 2)
        train(lightgcn(dataset), dataset, tmp_path, callbacks=[interrupt], **options)
    assert "no checkpoint in" in capsys.readouterr().err
    result = train(lightgcn(dataset), dataset, tmp_path, **options)
    assert len(result.history) == 4
    assert "last.ckpt is of epoch 2: training goes on" in capsys.readouterr().err
    log = logged(tmp_path)

    def training_step(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(training.RecommenderModule, "training_step", training_step)
    again = train(lightgcn(dataset), dataset, tmp_path, **options)
    assert parts_of(again) == parts_of(result) and again.seconds == result.seconds
    assert "last.ckpt is of epoch 4: the run has ended" in capsys.readouterr().err
    assert logged(tmp_path) == log


def test_a_run_that_has_ended_may_get_more_epochs_but_not_fewer(dataset, tmp_path, train):
    whole = train(lightgcn(dataset), dataset, tmp_path / "whole", epochs=5)
    train(lightgcn(dataset), dataset, tmp_path / "more", epochs=2)
    result = train(lightgcn(dataset), dataset, tmp_path / "more", epochs=5, resume=True)
    assert parts_of(result) == parts_of(whole)
    with pytest.raises(ValueError, match=r"'epochs' must be at least the 5 that .* \(got 4\)"):
        train(lightgcn(dataset), dataset, tmp_path / "more", epochs=4, resume=True)


def test_a_moved_folder_goes_on_where_it_is_now(dataset, tmp_path, train, recwarn):
    whole = train(lightgcn(dataset), dataset, tmp_path / "whole")
    with pytest.raises(Interrupted):
        interrupt = InterruptAt("on_train_batch_start", 3, 1)
        train(lightgcn(dataset), dataset, tmp_path / "here", callbacks=[interrupt])
    shutil.move(tmp_path / "here", tmp_path / "there")
    result = train(lightgcn(dataset), dataset, tmp_path / "there", resume=True)
    assert parts_of(result) == parts_of(whole)
    assert not (tmp_path / "here").exists()
    assert not [w for w in recwarn if "dirpath" in str(w.message)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lr": 0.02}, r"lr \(0.01 there, 0.02 now\)"),
        ({"seed": 1, "patience": 3}, r"patience \(20 there, 3 now\), seed \(0 there, 1 now\)"),
        ({"modalities": ["text"]}, r"modalities \(null there, \[\"text\"\] now\)"),
        ({"trainer_kwargs": {"limit_train_batches": 2}}, r"\['limit_train_batches'\] \(none"),
        ({"trainer_kwargs": {"enable_progress_bar": False}}, None),
    ],
)
def test_other_settings_are_refused_and_named(dataset, tmp_path, train, change, what):
    train(lightgcn(dataset), dataset, tmp_path, epochs=1)
    if what is None:
        train(lightgcn(dataset), dataset, tmp_path, epochs=1, resume=True, **change)
        return
    with pytest.raises(ValueError, match=rf"last.ckpt is of another run.*{what}.*resume=False"):
        train(lightgcn(dataset), dataset, tmp_path, epochs=1, resume=True, **change)


def test_another_model_or_data_set_is_refused_and_named(dataset, planted_dataset, tmp_path, train):
    train(freedom(dataset), dataset, tmp_path, epochs=1)
    for model, what in (
        (lightgcn(dataset), r"model \(\"FREEDOM\" there, \"LightGCN\" now\)"),
        (freedom(dataset, num_layers=3), r"model's num_layers \(2 there, 3 now\)"),
    ):
        with pytest.raises(ValueError, match=what):
            train(model, dataset, tmp_path, epochs=1, resume=True)
    other = planted_dataset(seed=2)
    for what in ("train interactions", "test interactions", "content 'text'", "weights item sim"):
        with pytest.raises(ValueError, match=rf"{what}.* \(sha256 \w+ there, sha256 \w+ now\)"):
            train(freedom(other), other, tmp_path, epochs=1, resume=True)
    train(freedom(dataset, num_layers=2), dataset, tmp_path, epochs=1, resume=True)  # the default


def test_an_attribute_set_since_is_a_setting(dataset, tmp_path, train):
    model = lightgcn(dataset)
    train(model, dataset, tmp_path, epochs=1)
    model.edge_dropout = 0.5
    with pytest.raises(ValueError, match=r"differs in model's edge_dropout \(0.0 there, 0.5 now\)"):
        train(model, dataset, tmp_path, epochs=2, resume=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "state_dict": {}}, r"was not written by this fit.*resume=False"),
        ({"weight": torch.ones(2)}, "is no checkpoint of a training run: move it away"),
        ([1, 2], "is no checkpoint of a training run: move it away"),
        (torch.ones(2), "is no checkpoint of a training run: move it away"),
    ],
)
def test_checkpoints_of_another_program_are_refused(dataset, tmp_path, train, content, said):
    folder = tmp_path / "checkpoints/model"
    folder.mkdir(parents=True)
    torch.save(content, folder / "last.ckpt")
    with pytest.raises(ValueError, match=rf"last.ckpt {said}"):
        train(lightgcn(dataset), dataset, tmp_path, resume=True)


def test_run_without_resume_begins_anew_and_forgets_the_old_one(dataset, tmp_path, train):
    whole = train(lightgcn(dataset), dataset, tmp_path / "whole", epochs=1)
    train(lightgcn(dataset), dataset, tmp_path / "anew", epochs=6, seed=3)
    with pytest.raises(Interrupted):  # before its first checkpoint
        interrupt = InterruptAt("on_train_epoch_end", 0)
        train(lightgcn(dataset), dataset, tmp_path / "anew", callbacks=[interrupt])
    folder = tmp_path / "anew/checkpoints/model"
    assert {path.name for path in folder.glob("*.ckpt")} == set(KEPT)  # nothing is lost yet
    # What is gone on with is the run that began last, not the one whose files lie there.
    result = train(lightgcn(dataset), dataset, tmp_path / "anew", epochs=1, resume=True)
    assert parts_of(result) == parts_of(whole)
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 0


def test_a_resumed_run_keeps_its_files_until_it_has_better_ones(dataset, tmp_path, train):
    train(lightgcn(dataset), dataset, tmp_path, epochs=3)
    folder = tmp_path / "checkpoints/model"
    with pytest.raises(Interrupted):
        interrupt = InterruptAt("on_train_epoch_end", 3)
        train(lightgcn(dataset), dataset, tmp_path, epochs=5, resume=True, callbacks=[interrupt])
    assert {path.name for path in folder.iterdir()} == set(KEPT)
    whole = train(lightgcn(dataset), dataset, tmp_path / "whole", epochs=5)
    result = train(lightgcn(dataset), dataset, tmp_path, epochs=5, resume=True)
    assert parts_of(result) == parts_of(whole)


def test_another_start_of_the_weights_is_refused(dataset, tmp_path, train):
    train(lightgcn(dataset), dataset, tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r'start \("random" there, "spectral, length 0.8" now\)'):
        train(lightgcn(dataset), dataset, tmp_path, epochs=1, resume=True, spectral_start=True)


def test_the_home_folder_is_found_again(dataset, tmp_path, train, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        train(lightgcn(dataset), dataset, "~/runs", epochs=1, resume=True)
    assert "the run has ended" in capsys.readouterr().err
    assert (tmp_path / "runs/checkpoints/model/last.ckpt").exists()
