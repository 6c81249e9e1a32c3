import csv

import pytest
import torch

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.evaluation import evaluate
from gtc_pyg.lightning import FitResult, GraphInputs, InteractionDataModule, fit
from gtc_pyg.models import GTC, GraphRecommender, LightGCN
from gtc_pyg.transforms import ItemKNNGraph


@pytest.fixture(scope="module")
def dataset() -> PlantedPreferences:
    return PlantedPreferences(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


def make_gtc(dataset, **settings) -> GTC:
    torch.manual_seed(0)
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    return GTC(dataset.num_users, dataset.num_items, widths, hidden_channels=16, **settings)


def train(model: GraphRecommender, dataset, out, **options) -> FitResult:
    settings = {"lr": 0.01, "epochs": 4, "batch_size": 64, "progress": False, "out": out}
    return fit(model, dataset, **(settings | options))


def embed(model, dataset):
    inputs = GraphInputs.from_data(dataset[0])
    with torch.no_grad():
        return model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)


def labels(dataset, split):
    return dataset.view(split)["user", "rates", "item"].edge_label_index


def test_the_best_epoch_has_the_highest_validation_recall(dataset, tmp_path):
    result = train(make_gtc(dataset), dataset, tmp_path)
    recalls = [row["val/Recall@20"] for row in result.history]
    assert len(recalls) == 4
    assert result.best_epoch == 1 + recalls.index(max(recalls))
    assert result.val["Recall@20"] == max(recalls)
    assert result.seconds_per_epoch > 0


def test_reported_metrics_are_those_of_the_returned_model(dataset, tmp_path):
    result = train(make_gtc(dataset), dataset, tmp_path)
    seen = [labels(dataset, "train")]
    for split, reported in (("val", result.val), ("test", result.test)):
        expected = evaluate(*embed(result.model, dataset), labels(dataset, split), seen)
        assert reported == pytest.approx(expected, abs=1e-6)


def test_validation_items_are_left_out_on_test_by_option(dataset, tmp_path):
    model = LightGCN(dataset.num_users, dataset.num_items, hidden_channels=8)
    result = train(model, dataset, tmp_path, exclude_validation=True)
    seen = [labels(dataset, "train"), labels(dataset, "val")]
    expected = evaluate(*embed(result.model, dataset), labels(dataset, "test"), seen)
    assert result.test == pytest.approx(expected, abs=1e-6)


def test_the_same_seed_gives_the_same_weights(dataset, tmp_path):
    runs = [train(make_gtc(dataset), dataset, tmp_path / str(i)) for i in range(2)]
    other = train(make_gtc(dataset), dataset, tmp_path / "other", seed=1)
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert runs[0].history == runs[1].history
    assert any(not torch.equal(first[key], other.model.state_dict()[key]) for key in first)


def test_training_stops_when_validation_stops_rising(dataset, tmp_path):
    result = train(make_gtc(dataset), dataset, tmp_path, lr=0.0, epochs=30, patience=3)
    assert len(result.history) == 4
    assert result.best_epoch == 1


def test_checkpoints_and_logs_are_written_and_hold_no_pickled_code(dataset, tmp_path):
    result = train(make_gtc(dataset), dataset, tmp_path, name="run")
    for name in ("best", "last"):
        path = tmp_path / "checkpoints" / "run" / f"{name}.ckpt"
        state = torch.load(path, weights_only=True)["state_dict"]
        assert any(key.startswith("model.filter.denoisers.") for key in state)
    with (tmp_path / "logs" / "run" / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    for column in ("train/ranking", "train/diffusion", "train/total_correlation", "val/MAP@5"):
        assert column in columns
    assert list((tmp_path / "tensorboard" / "run").glob("events*"))
    assert isinstance(result.model, GTC)


def test_content_can_be_chosen_and_an_unknown_modality_is_named(dataset):
    data = InteractionDataModule(dataset, modalities=["text"])
    assert list(data.inputs.features) == ["text"]
    with pytest.raises(ValueError, match=r"\['smell'\].*\['image', 'text'\]"):
        InteractionDataModule(dataset, modalities=["smell"])


def test_presence_masks_travel_with_the_content(dataset):
    data = dataset[0]
    data["item"].has_text = torch.arange(dataset.num_items) % 2 == 0
    inputs = GraphInputs.from_data(data)
    assert list(inputs.features) == ["image", "text", "has_text"]
    assert inputs.features["has_text"].dtype == torch.bool


def test_an_impossible_number_of_epochs_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="'epochs' must be at least 1"):
        train(make_gtc(dataset), dataset, tmp_path, epochs=0)


@pytest.fixture(scope="module")
def sampling():
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    return [4, 3, 3]


def test_mini_batches_are_seeded_and_reach_every_weight(dataset, tmp_path, sampling):
    options = {"epochs": 2, "num_neighbors": sampling}
    runs = [
        train(make_gtc(dataset), dataset, tmp_path / str(i), **options, seed=i // 2)
        for i in range(3)
    ]
    first, second, other = (run.model.state_dict() for run in runs)
    start = make_gtc(dataset).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["item_emb.weight"], other["item_emb.weight"])
    still = {key for key in first if torch.equal(first[key], start[key])}
    assert still <= {"filter.schedule.alpha_bar"}


def test_a_mini_batch_moves_the_embeddings_it_touches_alone(dataset, tmp_path, sampling):
    model = LightGCN(dataset.num_users, dataset.num_items, 8)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    limit = {"trainer_kwargs": {"limit_train_batches": 1}}
    train(model, dataset, tmp_path, epochs=1, batch_size=1, num_neighbors=[1], **limit)
    moved = [int((x != before[key]).any(dim=1).sum()) for key, x in model.state_dict().items()]
    assert all(0 < num < 12 for num in moved)


def test_mini_batches_learn_what_the_whole_graph_learns(dataset, tmp_path, sampling):
    recalls = []
    for i, num_neighbors in enumerate((None, sampling)):
        torch.manual_seed(0)
        model = LightGCN(dataset.num_users, dataset.num_items, 16)
        start = evaluate(*embed(model, dataset), labels(dataset, "val"), [labels(dataset, "train")])
        result = train(model, dataset, tmp_path / str(i), epochs=8, num_neighbors=num_neighbors)
        assert result.val["Recall@20"] > start["Recall@20"] + 0.05
        recalls.append(result.val["Recall@20"])
    assert abs(recalls[0] - recalls[1]) < 0.1
