from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.explain import filter_relevance, filter_share, score_share
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models import GTC, GraphRecommender
from tests.models.graphs import gtc_of

CONDITIONS = ["item", "neighbors", "user"]


def tiny(**kwargs: Any) -> tuple[GTC, dict[str, Tensor], dict[Any, Tensor]]:
    r"""Three users, four items, two modalities."""
    edges = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3]])
    edges = {USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)}
    model = gtc_of(tiny_graph(3, edges), 6, num_item_layers=0, **kwargs)
    features = {"image": torch.randn(4, 5), "text": torch.randn(4, 3)}
    return model, features, edges


def tiny_graph(num_users: int, edges: dict[Any, Tensor]) -> SimpleNamespace:
    graph = SimpleNamespace(num_users=num_users, num_items=4, in_channels={"image": 5, "text": 3})
    graph.edge_index_dict, graph.edge_weight_dict = edges, None
    return graph


class Linear(GraphRecommender):
    r"""Scores by all content, each column times what the user makes of it."""

    def __init__(self, taste: Tensor, num_items: int, names: list[str]) -> None:
        super().__init__(taste.size(0), num_items)
        self.taste, self.names = taste, names

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.names)

    def embed(self, features: Any, graph: Any) -> tuple[Tensor, Tensor]:
        return self.taste, torch.cat([features[name] for name in self.names], dim=1)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("columns", [slice(0, 2), torch.tensor([3, 1]), None])
def test_relevance_equals_the_definition_by_hand(condition: str, columns: Any) -> None:
    model, features, edges = tiny(condition=condition, num_sampling_steps=2)
    erased = {name: x.clone() for name, x in features.items()}
    for c in range(5) if columns is None else torch.arange(5)[columns].tolist():
        erased["image"][:, c] = sum(features["image"][i, c] for i in range(4)) / 4
    before, after = (model.filter_content(x, edges)["image"] for x in (features, erased))
    sampler = model.content_filter.sampler
    level = sampler.schedule.alpha_bar[sampler.times[-2]].float()
    lin = model.content_filter.denoisers["image"].lin_out
    rows = []
    for u in range(3):
        gate = 1 if before.gate is None else before.gate[u]
        x, y = (
            (f.x_t - (1 - level).sqrt() * ((gate * f.h) @ lin.weight.t() + lin.bias)) / level.sqrt()
            for f in (before, after)
        )
        rows.append(sum((x[i] - y[i]).pow(2).sum().sqrt() for i in range(4)) / 4)
    given = {} if columns is None else {"columns": columns}
    out = filter_relevance(model, features, edges, "image", **given)
    torch.testing.assert_close(out, torch.stack(rows).detach())
    assert (out > 1e-3).all()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_column_that_no_weight_reads_is_not_relevant(condition: str) -> None:
    model, features, edges = tiny(condition=condition)
    model.content_filter.encoders["image"].lin.weight.data[:, 3] = 0
    columns = torch.tensor([3])
    assert (filter_relevance(model, features, edges, "image", columns) == 0).all()
    assert (score_share(model, features, edges, "image", columns) == 0).all()
    columns = torch.tensor([2, 3])
    assert (filter_relevance(model, features, edges, "image", columns) > 0).all()
    assert (score_share(model, features, edges, "image", columns) != 0).all()


def test_content_that_is_alike_in_all_items_is_not_relevant() -> None:
    model, features, edges = tiny()
    features["text"][:, 1] = 3.0
    columns = slice(1, 2)
    out = filter_relevance(model, features, edges, "text", columns)
    torch.testing.assert_close(out, torch.zeros(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_relevance_differs_by_user_only_with_gates(planted: Callable, condition: str) -> None:
    graph = planted()
    model = gtc_of(graph, condition=condition)
    out = filter_relevance(model, graph.features, graph.edge_index_dict, "image", slice(0, 8))
    assert out.shape == (graph.num_users,)
    if condition == "user":
        assert out.unique().numel() > 50
    else:
        assert out.unique().numel() == 1


def test_other_users_gates_give_other_users_relevance(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph)
    given = graph.features, graph.edge_index_dict, "text", slice(8, 16)
    own = filter_relevance(model, *given)
    perm = torch.randperm(graph.num_users)
    torch.testing.assert_close(filter_relevance(model, *given, gate_of=perm), own[perm])
    same = torch.zeros(graph.num_users, dtype=torch.long)
    first = filter_relevance(model, *given, gate_of=same)
    torch.testing.assert_close(first, own[:1].expand(graph.num_users))


def test_more_users_than_one_block_have_the_relevance_of_few() -> None:
    model, features, edges = tiny()
    few = filter_relevance(model, features, edges, "image")
    # Each user 200 times: no mean over users changes.
    user, item = edges[USER_TO_ITEM]
    copies = torch.cat([torch.stack([user + 3 * n, item]) for n in range(200)], dim=1)
    edges = {USER_TO_ITEM: copies, ITEM_TO_USER: copies.flip(0)}
    many = gtc_of(tiny_graph(600, edges), 6, num_item_layers=0)
    many.content_filter.load_state_dict(model.content_filter.state_dict())
    many.item_emb.load_state_dict(model.item_emb.state_dict())
    many.user_emb.weight.data = model.user_emb.weight.data.repeat(200, 1)
    out = filter_relevance(many, features, edges, "image")
    torch.testing.assert_close(out, few.repeat(200), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 100.0, torch.nan])
def test_absent_content_is_never_read(value: float) -> None:
    model, features, edges = tiny(incomplete=["image"])
    features["has_image"] = torch.tensor([True, True, True, False])
    outs = []
    for x in (1.0, value):
        features["image"][3] = x
        relevance = filter_relevance(model, features, edges, "image", slice(0, 2))
        outs.append((relevance, score_share(model, features, edges, "image", slice(0, 2))))
    assert all(x.isfinite().all() for x in outs[0])
    torch.testing.assert_close(outs[0], outs[1])


def test_shares_of_a_linear_score_add_up_to_1() -> None:
    torch.manual_seed(0)
    features = {"image": torch.randn(9, 4), "text": torch.randn(9, 3)}
    empty = torch.empty(2, 0, dtype=torch.long)
    edges, taste = {USER_TO_ITEM: empty, ITEM_TO_USER: empty}, torch.randn(5, 7)
    model = Linear(taste, 9, ["image", "text"])
    score = taste @ torch.cat(list(features.values()), dim=1).t()
    blocks = [("image", slice(0, 1)), ("image", torch.tensor([2, 1, 3])), ("text", slice(None))]
    shares = [score_share(model, features, edges, *block) for block in blocks]
    torch.testing.assert_close(sum(shares), torch.ones(5))
    for u in range(5):
        part = taste[u, 4:] @ features["text"].t()
        share = torch.cov(torch.stack([score[u], part]))[0, 1] / score[u].var()
        torch.testing.assert_close(shares[2][u], share)


def test_shares_of_independent_parts_are_of_the_variance() -> None:
    # Two columns without covariance, of variance 1: shares go by the squares of the user's weights.
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    empty = torch.empty(2, 0, dtype=torch.long)
    model = Linear(torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 2.0]]), 4, ["image"])
    edges = {USER_TO_ITEM: empty, ITEM_TO_USER: empty}
    out = score_share(model, {"image": x}, edges, "image", slice(0, 1))
    torch.testing.assert_close(out, torch.tensor([0.9, 0.5, 0.0]))


def test_the_share_equals_the_definition_by_hand(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, strength=0.5)
    given = graph.edge_index_dict, graph.edge_weight_dict
    erased = {**graph.features, "image": graph.features["image"].clone()}
    erased["image"][:, :8] = erased["image"][:, :8].mean(dim=0)
    with torch.no_grad():
        y, y_erased = (
            user @ item.t() for user, item in (model(graph.features, *given), model(erased, *given))
        )
    out = score_share(model, graph.features, given[0], "image", slice(0, 8), *given[1:])
    for u in range(graph.num_users):
        both = torch.stack([y[u], y[u] - y_erased[u]]).double()
        share = torch.cov(both)[0, 1] / y[u].double().var()
        torch.testing.assert_close(out[u], share.float(), rtol=1e-3, atol=1e-5)


def test_scores_that_do_not_vary_have_no_share() -> None:
    empty = torch.empty(2, 0, dtype=torch.long)
    model = Linear(torch.tensor([[0.0, 0.0]]), 4, ["image"])
    features, edges = {"image": torch.randn(4, 2)}, {USER_TO_ITEM: empty, ITEM_TO_USER: empty}
    assert score_share(model, features, edges, "image").tolist() == [0.0]


def test_nothing_is_changed_and_no_gradient_passes(unchanged: Callable) -> None:
    model, features, edges = tiny()
    with unchanged(model, features, edges):
        relevance = filter_relevance(model, features, edges, "image", slice(0, 2))
        shares = [
            score_share(model, features, edges, "image", slice(0, 2)),
            filter_share(model, features, edges, "image", torch.tensor([2, 0, 1])),
        ]
    assert not any(x.requires_grad for x in (relevance, *shares))


def test_wrong_arguments_are_named() -> None:
    model, features, edges = tiny()
    features |= {"sound": torch.ones(4, 2), "has_image": torch.ones(4, dtype=torch.bool)}
    for name in ("sound", "has_image"):
        message = rf"'name' must be one of \['image', 'text'\] \(got '{name}'\)"
        with pytest.raises(ValueError, match=message):
            filter_relevance(model, features, edges, name)
        with pytest.raises(ValueError, match=message):
            score_share(model, features, edges, name)
        with pytest.raises(ValueError, match=message):
            filter_share(model, features, edges, name)
    with pytest.raises(ValueError, match=r"'filter_of' must be \[3\] \(got \[2\]\)"):
        filter_share(model, features, edges, "image", filter_of=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"'gate_of' must be \[3\] \(got \[2\]\)"):
        filter_relevance(model, features, edges, "image", gate_of=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"'columns' must select some of 5 "):
        filter_relevance(model, features, edges, "image", slice(5, 9))
    del features["text"]
    with pytest.raises(ValueError, match=r"'features' lacks 'text'"):
        filter_relevance(model, features, edges, "text")
    with pytest.raises(ValueError, match=r"'edge_index_dict' lacks .*rev_rates"):
        filter_relevance(model, features, {USER_TO_ITEM: edges[USER_TO_ITEM]}, "image")


def test_the_filters_share_equals_its_part_of_the_scores(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, strength=0.5)
    given = graph.features, graph.edge_index_dict
    csr = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    others = torch.randperm(graph.num_users, generator=torch.Generator().manual_seed(1))
    for filter_of in (None, others):
        whose = torch.arange(graph.num_users) if filter_of is None else filter_of
        with torch.no_grad():
            filtered = model.filter_content(graph.features, csr)
            filtered = {
                name: f._replace(gate=f.gate[whose], weight=f.weight[whose])
                for name, f in filtered.items()
            }
            user_emb, item_emb, _, content, _ = model.after_filter(filtered, csr)
            text = filtered["text"]
            p = 0.5 * text.weight.view(-1, 1) * torch.nn.functional.normalize(content["text"])
            part = p @ item_emb.t()
            score = user_emb @ item_emb.t()
        out = filter_share(model, *given, "text", filter_of, graph.edge_weight_dict)
        for u in range(graph.num_users):
            both = torch.stack([score[u], part[u]]).double()
            share = torch.cov(both)[0, 1] / score[u].double().var()
            torch.testing.assert_close(out[u], share.float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("condition", ["item", "neighbors"])
def test_a_filter_that_is_alike_for_everybody_is_no_users_own(
    planted: Callable, condition: str
) -> None:
    graph = planted()
    given = gtc_of(graph, condition=condition), graph.features, graph.edge_index_dict
    weights = {"edge_weight_dict": graph.edge_weight_dict}
    others = torch.randperm(graph.num_users)
    own, theirs = (filter_share(*given, "image", of, **weights) for of in (None, others))
    assert own.unique().numel() > 1
    torch.testing.assert_close(own, theirs, rtol=0, atol=0)
