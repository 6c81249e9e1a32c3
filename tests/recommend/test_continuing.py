import copy

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from scipy.linalg import orthogonal_procrustes

from gtc_pyg.datasets import from_frames
from gtc_pyg.functional import normalize_rows, spectral_factors
from gtc_pyg.lightning import fit
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GTC, LightGCN
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend.continuing import grown_dataset, warm_started
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.transforms import ItemKNNGraph

NEW = {"new": [1000, 997, 7], "u01": [7, 994]}


@pytest.fixture
def grown(recommender, dataset):
    recommender.add_items([7], {name: x[:1] for name, x in dataset.features.items()})
    return recommender


def test_everything_known_is_put_together_with_what_is_new(grown, dataset):
    everything = grown_dataset(grown, NEW, ItemKNNGraph(k=5), ratios=(0.8, 0.1, 0.1), seed=0)
    assert everything.num_users == 61 and everything.item_ids.tolist() == [*dataset.item_ids, 7]
    assert everything.items["title"].tolist()[:40] == dataset.items["title"].tolist()
    for name, x in dataset.features.items():
        assert torch.equal(everything.features[name], torch.cat([x, x[:1]]))
    views = [everything.view(split)["user", "rates", "item"] for split in ("train", "val", "test")]
    edges = torch.cat([view.edge_label_index for view in views], dim=1).tolist()
    found = {(everything.user_ids[u], everything.item_ids[i]) for u, i in zip(*edges, strict=True)}
    known = {(dataset.user_ids[u], dataset.item_ids[i]) for u, i in grown.seen.t().tolist()}
    assert found == known | {(user, item) for user, items in NEW.items() for item in items}
    with pytest.raises(ValueError, match="unknown item 8"):
        grown_dataset(grown, {"new": [8]}, None)
    with pytest.raises(ValueError, match="user ids must be strings"):
        grown_dataset(grown, {17: [7]}, None)


@pytest.mark.parametrize("kind", [GTC, LightGCN])
def test_weights_are_carried_over_by_id(grown, dataset, kind):
    if kind is LightGCN:
        grown.model = LightGCN(60, 40, hidden_channels=16)
    for seed in range(99):  # until the new item is not held out
        everything = grown_dataset(grown, NEW, ItemKNNGraph(k=5), seed=seed)
        if (everything[0]["user", "rates", "item"].edge_index[1] == 40).any():
            break
    order = torch.randperm(61)
    everything._user_ids = everything.user_ids[order.numpy()]
    torch.manual_seed(3)
    model, old = warm_started(grown, everything, turn=0.0), grown.model
    assert (model.num_users, model.num_items) == (61, 41)
    for row, user in enumerate(everything.user_ids):
        if user != "new":
            before = old.user_emb.weight[dataset.user_ids.get_loc(user)]
            assert torch.allclose(model.user_emb.weight[row], before)
    assert torch.allclose(model.item_emb.weight[:40], old.item_emb.weight)
    for name, value in model.state_dict().items():
        if not name.startswith(("user_emb", "item_emb", "heads", "prepared")):
            assert torch.equal(value, old.state_dict()[name])
    if kind is GTC:  # of the grown graph, not of the old one
        anew, inputs = copy.deepcopy(model), GraphInputs.from_data(everything[0])
        anew.prepared.fill_(False)
        anew.prepare(inputs.edge_index_dict, inputs.edge_weight_dict, spectral_start=False)
        assert torch.equal(anew.heads[0].item, model.heads[0].item)
        assert not torch.equal(model.heads[0].item[:40], old.heads[0].item)
    lengths = old.item_emb.weight.norm(dim=1).mean()
    assert model.item_emb.weight[40].norm().item() == pytest.approx(lengths.item(), rel=1e-5)


def test_what_was_trained_on_is_trained_on_again(grown, dataset):
    everything = grown_dataset(grown, NEW, ItemKNNGraph(k=5), (0.5, 0.25, 0.25), seed=0)

    def pairs(source, split):
        edges = source.view(split)["user", "rates", "item"].edge_label_index.tolist()
        return {(source.user_ids[u], source.item_ids[i]) for u, i in zip(*edges, strict=True)}

    before, new = pairs(dataset, "train"), {(u, i) for u, items in NEW.items() for i in items}
    held_out = pairs(everything, "val") | pairs(everything, "test")
    assert before <= pairs(everything, "train")
    assert held_out <= new | pairs(dataset, "val") | pairs(dataset, "test")
    assert len(held_out) >= 10 and ("new", 1000) in pairs(everything, "train")
    few, unseen = Recommender(grown.model, dataset, seen=("train",)), set(dataset.item_ids)
    unseen -= {item for user, item in before if user == "u01"}
    with pytest.raises(ValueError, match=r"at least two to hold out.*\(got 1\)"):
        grown_dataset(few, {"u01": [min(unseen)]}, None)


def test_new_rows_begin_at_the_mean_direction_of_neighbours(dataset):
    old = LightGCN(3, 2, hidden_channels=2)
    items = pd.DataFrame({"item": list("xyz")})
    x = {"text": torch.randn(3, 4)}
    with torch.no_grad():
        old.user_emb.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0], [1.0, 0.0]]))
        old.item_emb.weight.copy_(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    every = pd.DataFrame(
        {
            "user": [*"aabbcc", "a", "b", "d", "d", "d", "d"],
            "item": [*"xyxyxy", "z", "z", "x", "z", "y", "x"],
            "split": ["train"] * 10 + ["val", "train"],
        }
    )
    every.loc[len(every)] = ["c", "z", "test"]
    every = every.drop_duplicates(["user", "item"])
    grown = from_frames(every, items, x, split_column="split")
    known = pd.Index(list("abc")), pd.Index(list("xy"))

    class Known:
        model, features = old, {"text": x["text"][:2]}

    Known.users, Known.items = Ids(known[0], "user"), Ids(known[1], "item")
    model = warm_started(Known, grown, turn=0.0)
    # z: users a [1, 0] and b [0, 1], trained on; length 2 as of x and y
    half = 0.5**0.5
    assert torch.allclose(model.item_emb.weight[2], 2 * torch.tensor([half, half]), atol=1e-6)
    # d: x [0, 1] and z [half, half] of training; mean length (3 + 4 + 1) / 3
    direction = torch.tensor([half, 1 + half])
    expected = 8 / 3 * direction / direction.norm()
    assert torch.allclose(model.user_emb.weight[3], expected, atol=1e-6)


def test_directions_turn_half_way_to_the_grown_graphs(grown):
    everything = grown_dataset(grown, NEW, ItemKNNGraph(k=5), seed=0)
    begun = warm_started(grown, everything, turn=0.0)
    edge_index = everything[0]["user", "rates", "item"].edge_index
    factors = torch.cat(spectral_factors(edge_index, 61, 41, begun.user_emb.embedding_dim))
    graph, w = normalize_rows(factors).numpy(), torch.cat(embeddings(begun)).numpy()
    lengths = np.linalg.norm(w, axis=1, keepdims=True)
    trained = [user != "new" for user in everything.user_ids] + [True] * 40 + [False]
    rotation, _ = orthogonal_procrustes(graph[trained], (w / lengths)[trained])
    alone = np.linalg.norm(graph, axis=1) == 0  # held out, all of it
    for turn in (0.5, 1.0):
        expected = (1 - turn) * w / lengths + turn * graph @ rotation
        expected *= lengths / np.linalg.norm(expected, axis=1, keepdims=True).clip(1e-9)
        expected[alone] = w[alone]
        model = warm_started(grown, everything, turn=turn)
        assert np.allclose(torch.cat(embeddings(model)), expected, atol=1e-4)
    assert not np.allclose(expected, w, atol=0.1)


def test_directions_of_the_graph_stay_in_any_basis(grown):
    everything = grown_dataset(grown, NEW, ItemKNNGraph(k=5), seed=0)
    start = warm_started(grown, everything)
    start.start_from(everything[0]["user", "rates", "item"].edge_index)
    basis = torch.linalg.qr(torch.randn(16, 16)).Q
    before = torch.cat(embeddings(start)) @ basis
    known = Recommender(start, everything)
    with torch.no_grad():
        known.model.user_emb.weight.copy_(before[:61])
        known.model.item_emb.weight.copy_(before[61:])
    after = torch.cat(embeddings(warm_started(known, everything)))
    assert torch.allclose(after, before, atol=1e-4)


def embeddings(model):
    return model.user_emb.weight.detach(), model.item_emb.weight.detach()


def test_update_knows_what_is_new_and_leaves_the_old_one_alone(grown, tmp_path):
    before = grown.recommend(k=5)
    options = {"epochs": 2, "out": tmp_path, "progress": False, "batch_size": 64}
    updated = grown.update(NEW, **options)
    assert_frame_equal(grown.recommend(k=5), before)
    assert updated.num_users == 61 and updated.num_items == 41
    assert not set(updated.recommend("new", k=41)["item"]) & set(NEW["new"])
    assert_frame_equal(grown.update(NEW, **options).recommend(k=5), updated.recommend(k=5))
    loaded = Recommender.load(updated.save(tmp_path / "m"))
    assert_frame_equal(loaded.recommend(k=5), updated.recommend(k=5))


def test_items_added_are_saved_and_can_be_trained_on_afterwards(grown, tmp_path):
    loaded = Recommender.load(grown.save(tmp_path / "m"))
    assert_frame_equal(loaded.recommend(k=42), grown.recommend(k=42))
    for name, x in grown.features.items():
        assert torch.equal(loaded.features[name], x)
    options = {"epochs": 1, "out": tmp_path, "progress": False}
    assert_frame_equal(
        loaded.update(NEW, **options).recommend(k=5), grown.update(NEW, **options).recommend(k=5)
    )


def test_a_modality_that_new_items_lack_becomes_incomplete(recommender, dataset):
    recommender.add_items([7], {"image": dataset.features["image"][:1]})
    everything = grown_dataset(recommender, NEW, ItemKNNGraph(k=5), ratios=(0.8, 0.1, 0.1), seed=0)
    assert everything.incomplete == ("text",)
    model = warm_started(recommender, everything)
    assert model.content_filter.incomplete == ("text",)


def test_other_content_is_refused(recommender, dataset):
    frame = pd.DataFrame(
        {"user": ["u01"] * 3, "item": [1000, 997, 994], "s": ["train", "val", "test"]}
    )
    other = from_frames(
        frame, features={"smell": {1000: [1.0], 997: [2.0], 994: [0.0]}}, split_column="s"
    )
    with pytest.raises(
        ValueError, match=r"'dataset' must have content 'image' \[I, 32\].*got \['smell'\]"
    ):
        warm_started(recommender, other)


def test_a_user_who_has_every_item_stops_no_update(tmp_path):
    items, users = [f"i{row}" for row in range(12)], [f"u{row}" for row in range(9)]
    pairs = [(u, i) for r, u in enumerate(users) for c, i in enumerate(items) if (r + c) % 3 == 0]
    table = pd.DataFrame(pairs, columns=["user", "item"])
    table["split"] = ["train", "train", "val", "test"] * 9
    every = pd.DataFrame({"user": "collector", "item": items, "split": "train"})
    content = {"text": pd.DataFrame(np.eye(12), index=items)}
    data = from_frames(pd.concat([every, table]), features=content, split_column="split")
    options = {"epochs": 1, "progress": False, "out": tmp_path}
    with pytest.warns(UserWarning, match="user 'collector' has all 12 items") as found:
        model = fit(LightGCN(10, 12, hidden_channels=4), data, **options).model
    assert sum("all 12 items" in str(warning.message) for warning in found) == 1
    recommender = Recommender(model, data)
    assert recommender.recommend("collector").empty
    assert len(recommender.recommend("u0", k=12)) == 12 - 4
    new = {"new": items[:6], "u0": items[:5]}
    with pytest.warns(UserWarning, match="user 'collector' has all 12 items"):
        grown = recommender.update(new, **options)
    assert "new" in grown.users.index and grown.recommend("collector").empty
