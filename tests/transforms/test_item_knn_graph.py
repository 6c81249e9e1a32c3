from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gtc_pyg.transforms import ItemKNNGraph, item_knn_graph

NUM_ITEMS = 20


def make_data() -> HeteroData:
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["item"].num_nodes = NUM_ITEMS
    data["item"].x_image = torch.randn(NUM_ITEMS, 4, generator=generator)
    data["item"].x_text = torch.randn(NUM_ITEMS, 6, generator=generator)
    return data


def dense(data: HeteroData) -> Tensor:
    r"""Row: the item (destination); column: its neighbour (source)."""
    store = data["item", "similar", "item"]
    out = torch.zeros(NUM_ITEMS, NUM_ITEMS)
    out[store.edge_index[1], store.edge_index[0]] = store.edge_weight
    assert int((out != 0).sum()) == store.edge_weight.numel()  # no duplicates
    return out


def loop(x: Tensor, k: int) -> Tensor:
    out = torch.zeros(NUM_ITEMS, NUM_ITEMS)
    for i in range(NUM_ITEMS):
        cosine = [(float(x[i] @ x[j] / (x[i].norm() * x[j].norm())), j) for j in range(NUM_ITEMS)]
        for _, j in sorted(cosine, reverse=True)[:k]:
            out[i, j] = 1.0 / k
    return out


@pytest.mark.parametrize("k", [1, 3, NUM_ITEMS])
@pytest.mark.parametrize("chunk", [1, 3, 2048])
def test_equals_a_double_loop(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn_graph, "_CHUNK", chunk)
    data = make_data()
    out = ItemKNNGraph(k, {"image": 1.0, "text": 3.0})(data)
    expected = 0.25 * loop(data["item"].x_image, k) + 0.75 * loop(data["item"].x_text, k)
    torch.testing.assert_close(dense(out), expected)
    torch.testing.assert_close(dense(out).sum(1), torch.ones(NUM_ITEMS))


def test_none_weighs_all_modalities_equally() -> None:
    equal = ItemKNNGraph(3, {"image": 5.0, "text": 5.0})(make_data())
    torch.testing.assert_close(dense(ItemKNNGraph(3)(make_data())), dense(equal))


def test_permutation_of_items() -> None:
    data, permuted = make_data(), make_data()
    order = torch.randperm(NUM_ITEMS, generator=torch.Generator().manual_seed(1))
    for key in ("x_image", "x_text"):
        permuted["item"][key] = data["item"][key][order]
    expected = dense(ItemKNNGraph(4)(data))[order][:, order]
    torch.testing.assert_close(dense(ItemKNNGraph(4)(permuted)), expected)


@pytest.mark.parametrize("how", ["zeros", "mask"])
def test_item_without_content_is_alone(how: str) -> None:
    data = make_data()
    if how == "zeros":
        data["item"].x_image[5] = 0.0
    else:
        data["item"].has_image = torch.arange(NUM_ITEMS) != 5
    out = dense(ItemKNNGraph(4, {"image": 1.0})(data))
    assert out.isfinite().all()
    assert out[5].nonzero().tolist() == out[:, 5].nonzero().tolist() == [[5]]
    torch.testing.assert_close(out.sum(1), torch.ones(NUM_ITEMS))


def test_no_content_at_all_gives_self_loops() -> None:
    data = make_data()
    data["item"].x_image.zero_()
    out = dense(ItemKNNGraph(4, {"image": 1.0})(data))
    torch.testing.assert_close(out, torch.eye(NUM_ITEMS))


def test_item_is_its_own_neighbor_among_copies() -> None:
    data = make_data()
    data["item"].x_image = torch.ones(NUM_ITEMS, 3)
    data["item"].x_image[0, 0] = -1  # of one that differs, or nothing would be similar
    out = dense(ItemKNNGraph(2, {"image": 1.0})(data))
    torch.testing.assert_close(out.diagonal(), torch.full((NUM_ITEMS,), 0.5))


def test_published_graph_is_used_as_it_stands() -> None:
    data = make_data()
    store = data["item", "similar_image", "item"]
    # Item 0 lists 1, 2 and itself; item 1 lists itself and, twice, 0; the others only themselves.
    rest = torch.arange(2, NUM_ITEMS)
    source = torch.cat([torch.tensor([0, 1, 2, 1, 0, 0]), rest])
    target = torch.cat([torch.tensor([0, 0, 0, 1, 1, 1]), rest])
    store.edge_index = torch.stack([source, target])
    store.edge_weight = torch.linspace(0.1, 0.9, source.numel())
    out = dense(ItemKNNGraph(4, {"image": 2.0})(data))
    expected = torch.eye(NUM_ITEMS)
    expected[0, :3] = torch.tensor([1 / 3, 6**-0.5, 3**-0.5])
    expected[1, :2] = torch.tensor([6**-0.5, 1 / 2])
    torch.testing.assert_close(out, expected)


def test_edges_are_sorted_by_destination_and_input_is_left_alone() -> None:
    data = make_data()
    before = data["item"].x_image.clone()
    store = ItemKNNGraph(4)(data)["item", "similar", "item"]
    assert (store.edge_index[1].diff() >= 0).all()
    assert store.edge_weight.dtype == torch.float32
    assert data.edge_types == []
    assert torch.equal(data["item"].x_image, before)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"k": 0}, r"'k' must be at least 1 \(got 0\)"),
        ({"weights": {}}, "'weights' must name at least one modality"),
        ({"weights": {"image": 0.0}}, r"'weights' at 'image' must be positive .* \(got 0\.0\)"),
        ({"weights": {"image": -1.0}}, "'weights' at 'image' must be positive"),
        ({"weights": {"image": float("nan")}}, "'weights' at 'image' must be positive"),
        ({"k": NUM_ITEMS + 1}, r"'k' must be at most the number of items, 20 \(got 21\)"),
        ({"weights": {"audio": 1.0}}, r"unknown modality \['audio'\].*\['image', 'text'\]"),
    ],
)
def test_bad_argument_is_named(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemKNNGraph(**kwargs)(make_data())


def test_progress_is_shown_where_asked_for_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    graphs = [ItemKNNGraph(3, progress=progress)(make_data()) for progress in (False, True)]
    torch.testing.assert_close(*(dense(graph) for graph in graphs))
    assert repr(ItemKNNGraph(3, progress=True)) == repr(ItemKNNGraph(3))
    shown = capsys.readouterr().err
    assert "image" in shown and "text" in shown


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("value", [0.0, 0.7, -1e6])
def test_content_that_is_the_same_for_all_makes_no_neighbours(value: float, width: int) -> None:
    data = make_data()
    data["item"].x_image = torch.full((NUM_ITEMS, width), value)
    assert torch.equal(dense(ItemKNNGraph(3, {"image": 1.0})(data)), torch.eye(NUM_ITEMS))
    expected = (loop(data["item"].x_text, 3) + torch.eye(NUM_ITEMS)) / 2
    torch.testing.assert_close(dense(ItemKNNGraph(3)(data)), expected)


def test_one_item_that_differs_brings_neighbours_back() -> None:
    data = make_data()
    data["item"].x_image = torch.ones(NUM_ITEMS, 2)
    data["item"].x_image[4, 0] = -1
    found = dense(ItemKNNGraph(3, {"image": 1.0})(data))
    assert (found > 0).sum(dim=1).tolist() == [3] * NUM_ITEMS
    assert found[:, 4].count_nonzero() == 1


def test_content_of_one_item_makes_no_neighbours() -> None:
    data = make_data()
    data["item"].has_image = torch.arange(NUM_ITEMS) == 3
    assert torch.equal(dense(ItemKNNGraph(3, {"image": 1.0})(data)), torch.eye(NUM_ITEMS))
