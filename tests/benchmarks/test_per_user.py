import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import build_model
from gtc_pyg.transforms import ItemKNNGraph
from harness import per_user as bench


@pytest.fixture(scope="module")
def dataset():
    return PlantedPreferences(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


def test_values_of_users_have_the_reported_means(dataset):
    torch.manual_seed(0)
    model = build_model("gtc", dataset, heads=[]).train()
    values, users, *_ = bench.per_user(model, dataset)
    view = dataset.view("test")["user", "rates", "item"]
    data = dataset[0]
    features = {name: data["item"][f"x_{name}"] for name in dataset.modalities}
    with torch.no_grad():
        emb = model.eval()(features, data.edge_index_dict, data.edge_weight_dict)
    means = evaluate(*emb, view.edge_label_index, [data["user", "rates", "item"].edge_index])
    assert users.tolist() == view.edge_label_index[0].unique().tolist()
    for name, shown in (("recall", "Recall"), ("ndcg", "NDCG")):
        for k in (5, 20):
            value = values[f"{name}@{k}"]
            assert value.shape == users.shape
            assert value.mean() == pytest.approx(means[f"{shown}@{k}"], abs=1e-6)


def test_values_of_one_user_by_hand(dataset):
    # User 0 has the test items 3, 5 and 7, and they are ranked first, third and tenth.
    class Ranked(torch.nn.Linear):
        def forward(self, *args):
            order = [3, 0, 5, 1, 2, 4, 6, 8, 9, 7, *range(10, 40)]
            item_emb = torch.zeros(40, 1)
            item_emb[order, 0] = torch.arange(40.0, 0.0, -1.0)
            return torch.ones(60, 1), item_emb

    model = Ranked(1, 1)
    module = bench.InteractionDataModule(dataset)
    labels = torch.tensor([[0, 0, 0], [3, 5, 7]])
    module.rankers["test"] = type(module.rankers["test"])(labels, [], 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "InteractionDataModule", lambda *args: module)
        values, users, user_degree, of_user, item_degree, found = bench.per_user(model, dataset)
    assert users.tolist() == [0]
    user, item = dataset[0]["user", "rates", "item"].edge_index
    assert user_degree.tolist() == [int((user == 0).sum())]
    assert item_degree.tolist() == [int((item == i).sum()) for i in (3, 5, 7)]
    assert found.tolist() == [True, True, True] and of_user.tolist() == [0, 0, 0]
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert values["recall@5"] == pytest.approx([2 / 3])
    assert values["recall@20"] == pytest.approx([1.0])
    assert values["ndcg@5"] == pytest.approx([(1 + 1 / 2) / ideal])
    assert values["ndcg@20"] == pytest.approx([(1 + 1 / 2 + 1 / np.log2(11)) / ideal])


def test_places_that_no_item_is_left_for_are_no_hits(dataset):
    # User 1 may be shown items 0 and 1 alone; user 0, just before, has the last item.
    class Ranked(torch.nn.Linear):
        def forward(self, *args):
            return torch.ones(60, 1), torch.arange(40.0, 0.0, -1.0).view(-1, 1)

    module = bench.InteractionDataModule(dataset)
    seen = torch.stack([torch.ones(38, dtype=torch.long), torch.arange(2, 40)])
    labels = torch.tensor([[0, 1], [39, 0]])
    module.rankers["test"] = type(module.rankers["test"])(labels, [seen], 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "InteractionDataModule", lambda *args: module)
        values, *_, of_user, _, found = bench.per_user(Ranked(1, 1), dataset)
    for value in values.values():
        assert value == pytest.approx([0.0, 1.0])
    assert found.tolist() == [False, True] and of_user.tolist() == [0, 1]
