import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import build_model
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.lightning.checkpoints import CheckpointFiles
from gtc_pyg.models import GTC, LightGCN


def test_the_best_epoch_has_the_highest_validation_recall(dataset, tmp_path, make_gtc, train):
    result = train(make_gtc(dataset), dataset, tmp_path)
    recalls = [row["val/Recall@20"] for row in result.history]
    assert len(recalls) == 4
    assert result.best_epoch == 1 + recalls.index(max(recalls))
    assert result.val["Recall@20"] == max(recalls)
    assert result.seconds_per_epoch > 0


def test_best_epoch_is_read_to_the_cpu_from_any_device(dataset, tmp_path, train, monkeypatch):
    devices, load = [], torch.load

    def spy(*arguments, **options):
        devices.append(options.get("map_location"))
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", spy)
    model = LightGCN(dataset.num_users, dataset.num_items, hidden_channels=8)
    train(model, dataset, tmp_path, epochs=1)
    assert devices[0] == "cpu"


def test_reported_metrics_are_those_of_the_returned_model(
    dataset, tmp_path, make_gtc, train, embed, labels
):
    result = train(make_gtc(dataset), dataset, tmp_path)
    seen = [labels(dataset, "train")]
    for split, reported in (("val", result.val), ("test", result.test)):
        expected = evaluate(*embed(result.model, dataset), labels(dataset, split), seen)
        assert reported == pytest.approx(expected, abs=1e-6)


def test_validation_items_are_left_out_on_test_by_option(dataset, tmp_path, train, embed, labels):
    model = LightGCN(dataset.num_users, dataset.num_items, hidden_channels=8)
    result = train(model, dataset, tmp_path, exclude_validation=True)
    seen = [labels(dataset, "train"), labels(dataset, "val")]
    expected = evaluate(*embed(result.model, dataset), labels(dataset, "test"), seen)
    assert result.test == pytest.approx(expected, abs=1e-6)


def test_the_same_seed_gives_the_same_weights(dataset, tmp_path, make_gtc, train):
    runs = [train(make_gtc(dataset), dataset, tmp_path / str(i)) for i in range(2)]
    other = train(make_gtc(dataset), dataset, tmp_path / "other", seed=1)
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert runs[0].history == runs[1].history
    assert any(not torch.equal(first[key], other.model.state_dict()[key]) for key in first)


def test_mini_batches_of_a_model_that_prunes_are_refused(dataset, tmp_path, make_gtc, train):
    model = make_gtc(dataset, edge_dropout=0.5)
    with pytest.raises(ValueError, match=r"edge_dropout=0 \(got 0.5\)"):
        train(model, dataset, tmp_path, num_neighbors=[5, 5])
    assert not list(tmp_path.iterdir())


def test_training_stops_when_validation_stops_rising(dataset, tmp_path, make_gtc, train):
    result = train(make_gtc(dataset), dataset, tmp_path, lr=0.0, epochs=30, patience=3)
    assert len(result.history) == 4
    assert result.best_epoch == 1


def test_checkpoints_and_logs_are_written_without_pickled_code(dataset, tmp_path, make_gtc, train):
    result = train(make_gtc(dataset), dataset, tmp_path, name="run")
    for name in ("best", "last"):
        path = tmp_path / "checkpoints" / "run" / f"{name}.ckpt"
        state = torch.load(path, weights_only=True)["state_dict"]
        assert any(key.startswith("model.content_filter.denoisers.") for key in state)
    with (tmp_path / "logs" / "run" / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    for column in ("train/ranking", "train/diffusion", "train/total_correlation", "val/MAP@5"):
        assert column in columns
    assert list((tmp_path / "tensorboard" / "run").glob("events*"))
    assert isinstance(result.model, GTC)


def test_an_impossible_number_of_epochs_is_refused(dataset, tmp_path, make_gtc, train):
    with pytest.raises(ValueError, match="'epochs' must be a whole number, at least 1"):
        train(make_gtc(dataset), dataset, tmp_path, epochs=0)


@pytest.mark.parametrize("number", [np.float64, np.array, torch.tensor])
def test_scalars_of_numpy_and_torch_are_settings(number, dataset, tmp_path, train):
    plain = {"lr": 0.5, "epochs": 1, "batch_size": 64, "patience": 3, "seed": 1}
    plain |= {"weight_averaging": 0.25, "trainer_kwargs": {"gradient_clip_val": 2.0}}
    whole = np.int64 if number is np.float64 else number
    given = {k: whole(v) if isinstance(v, int) else v for k, v in plain.items()}
    given |= {k: number(v) for k, v in plain.items() if isinstance(v, float)}
    given["trainer_kwargs"] = {"gradient_clip_val": number(2.0)}

    def model():
        torch.manual_seed(0)
        return LightGCN(dataset.num_users, dataset.num_items, hidden_channels=8)

    expected = train(model(), dataset, tmp_path / "plain", **plain)
    found = train(model(), dataset, tmp_path / "given", **given)
    assert found.history == expected.history
    again = train(model(), dataset, tmp_path / "given", **plain, resume=True)
    assert again.history == expected.history and again.test == expected.test


@pytest.mark.parametrize("name", ["epochs", "batch_size", "patience", "seed"])
@pytest.mark.parametrize("value", [2.5, np.float64(2.5), True, "3", -1])
def test_what_is_no_whole_number_is_refused(name, value, dataset, tmp_path, make_gtc, train):
    with pytest.raises(ValueError, match=f"'{name}' must be a whole number"):
        train(make_gtc(dataset), dataset, tmp_path, **{name: value})


class _Weights(Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(pl_module.model.user_emb.weight.detach().clone())


@pytest.mark.parametrize("name", ["lightgcn", "gtc"])
def test_the_average_of_the_weights_is_evaluated_and_kept(
    name, dataset, tmp_path, train, embed, labels
):
    small = {"heads": [{"class": "SpectralHead", "channels": 4}]}
    model = build_model(name, dataset, **small)
    inputs = GraphInputs.from_data(dataset[0])
    model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict)
    buffers = {key: x.clone() for key, x in model.named_buffers()}
    seen, decay = _Weights(), 0.7
    options = {"epochs": 1, "callbacks": [seen], "weight_averaging": decay}
    result = train(model, dataset, tmp_path, **options)
    average = seen.steps[0]
    for weight in seen.steps[1:]:
        average = decay * average + (1 - decay) * weight
    assert len(seen.steps) > 2
    torch.testing.assert_close(result.model.user_emb.weight.detach(), average)
    assert not torch.allclose(average, seen.steps[-1])
    for key, buffer in result.model.named_buffers():
        assert torch.equal(buffer, buffers[key]), key
    known = [labels(dataset, "train")]
    expected = evaluate(*embed(result.model, dataset), labels(dataset, "val"), known)
    assert result.val == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "wanted",
    [
        {"check_val_every_n_epoch": 2},
        {"num_sanity_val_steps": 1},
        {"max_epochs": 3, "callbacks": []},
    ],
)
def test_what_would_skip_a_validation_or_a_checkpoint_is_refused(
    dataset, tmp_path, make_gtc, train, wanted
):
    with pytest.raises(ValueError, match=f"must leave {', '.join(wanted)} to fit"):
        train(make_gtc(dataset), dataset, tmp_path, trainer_kwargs=wanted)
    assert list(tmp_path.iterdir()) == []


class Keeper(Callback):
    """Keeps what is no plain value."""

    def state_dict(self):
        return {"where": Path("/")}


def test_callback_with_unreadable_state_is_refused_in_epoch_one(dataset, tmp_path, make_gtc, train):
    with pytest.raises(ValueError, match="plain values alone; a callback of yours may keep more"):
        train(make_gtc(dataset), dataset, tmp_path, epochs=5, callbacks=[Keeper()])
    rows = (tmp_path / "logs/model/metrics.csv").read_text().splitlines()
    assert len(rows) <= 3


def test_two_processes_do_not_train_one_run(dataset, tmp_path, make_gtc, train):
    with (
        CheckpointFiles(tmp_path / "checkpoints/model").claimed(),
        pytest.raises(RuntimeError, match="is of a run that another process trains now"),
    ):
        train(make_gtc(dataset), dataset, tmp_path)
    train(make_gtc(dataset), dataset, tmp_path, epochs=1)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_impossible_average_is_refused(dataset, tmp_path, make_gtc, train, decay):
    with pytest.raises(ValueError, match=r"'weight_averaging' must lie in \[0, 1\)"):
        train(make_gtc(dataset), dataset, tmp_path, weight_averaging=decay)


def test_wrong_arguments_are_named(dataset, tmp_path, make_gtc, train):
    model = make_gtc(dataset)
    with pytest.raises(ValueError, match=r"\(got PlantedPreferences and GTC\)"):
        train(dataset, model, tmp_path)
    for lr in (-1.0, "0.01", float("nan")):
        with pytest.raises(ValueError, match="'lr' must be a number, 0 or more"):
            train(model, dataset, tmp_path, lr=lr)


def test_a_result_is_printed_in_one_line(dataset, tmp_path, make_gtc, train):
    text = repr(train(make_gtc(dataset), dataset, tmp_path, epochs=1))
    assert text.startswith("FitResult(GTC, best epoch 1 of 1, validation Recall@20 0.")
    assert len(text) < 200


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_weights_that_are_not_finite_are_no_result(
    dataset, tmp_path, make_gtc, train, request, sampled, averaging
):
    neighbors = request.getfixturevalue("sampling") if sampled else None
    options = {"lr": 1e38, "epochs": 1, "batch_size": 10**6, "weight_averaging": averaging}
    with pytest.raises(FloatingPointError, match=r"^epoch 1: .*weight.* not finite\. No weights"):
        train(make_gtc(dataset), dataset, tmp_path, num_neighbors=neighbors, **options)
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_weights_that_a_layer_refuses_are_named(dataset, tmp_path, make_gtc, train):
    with pytest.raises(FloatingPointError, match=r"^epoch 1, step 2 of it: user_emb.weight, item"):
        train(make_gtc(dataset), dataset, tmp_path, lr=1e38)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["lightgcn", "freedom", "mgcn", "gtc", "gtc with heads"])
def test_a_precision_trains_what_single_precision_trains(
    dataset, tmp_path, make_recommender, train, embed, name, precision
):
    expected = train(make_recommender(name), dataset, tmp_path / "32", epochs=2)
    options = {"epochs": 2, "trainer_kwargs": {"precision": precision}}
    found = train(make_recommender(name), dataset, tmp_path / "other", **options)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    assert all(p.dtype == dtype for p in found.model.parameters())
    tables = [embed(result.model, dataset) for result in (expected, found)]
    scores = [(user @ item.t()).double().flatten() for user, item in tables]
    assert torch.corrcoef(torch.stack(scores))[0, 1] > 0.98
    assert abs(found.test["Recall@20"] - expected.test["Recall@20"]) < 0.1


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine"])
def test_a_precision_that_would_train_wrong_is_refused(dataset, tmp_path, train, precision):
    with pytest.raises((ValueError, ModuleNotFoundError), match=r"precision=|transformer_engine"):
        model, kwargs = LightGCN(60, 40, 8), {"precision": precision}
        train(model, dataset, tmp_path, trainer_kwargs=kwargs)
    assert list(tmp_path.rglob("*.ckpt")) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_is_refused(dataset, tmp_path, train, dtype):
    with pytest.raises(ValueError, match=rf"got {dtype} for 'user_emb.weight'.*model.float\(\)"):
        train(LightGCN(60, 40, 8).to(dtype), dataset, tmp_path)
