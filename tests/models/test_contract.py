r"""What every recommender keeps to, with and without heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.explain import Explainer
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GTC, GraphRecommender, Head, ItemBias, LightGCN, SpectralHead
from gtc_pyg.models.registry import MODELS, arguments_of
from gtc_pyg.nn import BPR, RankingLoss, SampledSoftmax
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph
from tests.explain.scores import assert_adds_up
from tests.models.graphs import arguments, gtc_of, seeded, with_isolated_nodes

TRAINED = [name for name, cls in MODELS.items() if cls.trainable]
CASES = [(name, heads) for name in TRAINED for heads in (False, True)]
CASES += [(name, False) for name in MODELS if name not in TRAINED]

every_case = pytest.mark.parametrize(("name", "heads"), CASES)


def model_of(
    graph: SimpleNamespace, name: str, heads: bool, ranking: RankingLoss | None = None
) -> GraphRecommender:
    r"""A small model, prepared, whose biases are not zero."""
    both: list[Head] = [SpectralHead(5, strength=0.6, debiasing=0.4), ItemBias()] if heads else []
    parts = {"ranking": BPR(scale=1.5) if ranking is None else ranking, "heads": both}
    cls = MODELS[name]
    if cls is GTC:
        return gtc_of(graph, **parts, strength=0.3)
    torch.manual_seed(0)
    sizes = graph.num_users, graph.num_items, *([] if cls is LightGCN else [graph.in_channels])
    model = cls(*sizes, 8, **parts) if cls.trainable else cls(*sizes, channels=8)
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias.weight)
    model.prepare(*arguments(graph)[1:], spectral_start=False)
    return model


def embeddings(model: GraphRecommender, graph: SimpleNamespace) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(*arguments(graph))


@every_case
def test_there_is_a_row_for_each_node(planted: Callable, name: str, heads: bool) -> None:
    graph = planted()
    model = model_of(graph, name, heads)
    user_emb, item_emb = embeddings(model, graph)
    width = 8 + (6 if heads else 0)
    assert user_emb.shape == (graph.num_users, width)
    assert item_emb.shape == (graph.num_items, width)
    assert user_emb.isfinite().all() and item_emb.isfinite().all()


@pytest.mark.parametrize("ranking", [BPR, SampledSoftmax])
@pytest.mark.parametrize("modalities", [("image",), ("image", "text")], ids=len)
@pytest.mark.parametrize(("name", "heads"), [case for case in CASES if case[0] in TRAINED])
def test_every_parameter_receives_a_gradient(
    planted: Callable, batch_of: Callable, name: str, heads: bool, modalities: tuple, ranking: type
) -> None:
    graph = planted(*modalities)
    model = model_of(graph, name, heads, ranking())
    parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
    assert "ranking" in parts and all(part.dim() == 0 for part in parts.values())
    sum(parts.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, parameter_name


def test_a_model_that_is_not_trained_has_no_loss(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    untrained = [name for name in MODELS if name not in TRAINED]
    assert untrained == ["spectral"]
    for name in untrained:
        model = model_of(graph, name, False)
        assert sum(p.numel() for p in model.parameters()) == 0
        with pytest.raises(NotImplementedError):
            model.loss(*batch_of(graph), *arguments(graph))


@pytest.mark.parametrize(("name", "heads"), [case for case in CASES if case[0] in TRAINED])
def test_reset_draws_all_weights_anew(planted: Callable, name: str, heads: bool) -> None:
    graph = planted()
    model = model_of(graph, name, heads)
    model.start_from(graph.edge_index_dict[USER_TO_ITEM])
    assert model.prepared and model.init_method != "random"
    states = []
    for value in (1.0, 2.0):
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, value)
        torch.manual_seed(5)
        model.reset_parameters()
        states.append({key: p.detach().clone() for key, p in model.named_parameters()})
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert not model.prepared and model.init_method == "random"
    model.prepare(*arguments(graph)[1:])
    assert all(x.isfinite().all() for x in embeddings(model, graph))


LAYERS = [
    (name, argument)
    for name, cls in MODELS.items()
    for argument in ("num_layers", "num_item_layers")
    if argument in arguments_of(cls)
]


@pytest.mark.parametrize(("name", "argument"), LAYERS)
def test_fewer_than_no_layers_are_refused(name: str, argument: str) -> None:
    content = [] if MODELS[name] is LightGCN else [{"image": 3}]
    with pytest.raises(ValueError, match=rf"'{argument}' must be at least 0 \(got -1\)"):
        MODELS[name](6, 4, *content, **{argument: -1})


@every_case
def test_adjacency_forms_give_the_same(
    planted: Callable, to_adj: Callable, name: str, heads: bool
) -> None:
    graph = planted()
    sizes = {"user": graph.num_users, "item": graph.num_items}
    adjs = {
        key: to_adj(edges, sizes[key[0]], sizes[key[2]], graph.edge_weight_dict.get(key))
        for key, edges in graph.edge_index_dict.items()
    }
    model = model_of(graph, name, heads)
    out = model(graph.features, adjs, graph.edge_weight_dict)
    torch.testing.assert_close(out, model(*arguments(graph)), rtol=0, atol=1e-6)


@every_case
def test_forward_and_loss_change_nothing(
    planted: Callable, batch_of: Callable, unchanged: Callable, name: str, heads: bool
) -> None:
    graph = planted()
    model, batch = model_of(graph, name, heads), batch_of(graph)
    keys = [list(mapping) for mapping in arguments(graph)]
    with unchanged(model, *arguments(graph), batch):
        model(*arguments(graph))
        if model.trainable:
            model.loss(*batch, *arguments(graph), generator=seeded())
    assert [list(mapping) for mapping in arguments(graph)] == keys


@every_case
def test_forward_draws_nothing_and_a_generator_decides_the_loss(
    planted: Callable, batch_of: Callable, name: str, heads: bool
) -> None:
    graph = planted()
    model, state = model_of(graph, name, heads), torch.get_rng_state()
    expected = embeddings(model, graph)
    losses = []
    for _ in range(2 if model.trainable else 0):
        parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded(3))
        losses.append(torch.stack(list(parts.values())))
    assert torch.equal(torch.get_rng_state(), state)
    assert not losses or torch.equal(*losses)
    torch.manual_seed(99)
    for again in (embeddings(model, graph), embeddings(model.eval(), graph)):
        assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def score_of_heads(model: GraphRecommender, graph: SimpleNamespace) -> Tensor:
    r"""What heads add to scores ``[U, I]``, user by user from their tables."""
    total = torch.zeros(graph.num_users, graph.num_items)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    similar = torch.zeros(graph.num_items, graph.num_items)
    source, target = graph.edge_index_dict[SIMILAR_ITEMS]
    similar[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
    for head in model.heads:
        if isinstance(head, ItemBias):
            total = total + head.bias.weight.detach().view(-1)
            continue
        items = head.item
        if model.num_item_layers > 0:
            items = items + torch.matrix_power(similar, model.num_item_layers) @ items
        for u in range(graph.num_users):
            mine = item[user == u]
            of_user = head.message[mine].sum(dim=0) / (mine.numel() + head.added_degree).sqrt()
            total[u] += head.strength * (head.item_scale * items) @ of_user
    return total


@every_case
def test_a_score_is_the_models_own_and_that_of_its_heads(
    planted: Callable, name: str, heads: bool
) -> None:
    graph = planted()
    model = model_of(graph, name, heads)
    with torch.no_grad():
        user_emb, item_emb = model.embed(graph.features, model.csr_graph(*arguments(graph)[1:]))
    own = model.ranking.scale * user_emb @ item_emb.t()
    added = score_of_heads(model, graph)
    assert (added.std() > 1e-3) == (len(model.heads) > 0)
    user_emb, item_emb = embeddings(model, graph)
    torch.testing.assert_close(user_emb @ item_emb.t(), own + added, rtol=1e-4, atol=1e-5)


@every_case
def test_a_trained_user_folded_in_is_that_user(planted: Callable, name: str, heads: bool) -> None:
    graph = planted()
    model = model_of(graph, name, heads).eval()
    user_emb, _ = embeddings(model, graph)
    embedder, own = model.user_embedder(*arguments(graph)), model.user_emb.weight.detach()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    out = embedder(edges, graph.num_users, own)
    torch.testing.assert_close(out, user_emb, rtol=1e-4, atol=1e-5)
    items = edges[1][edges[0] == 7]
    one = embedder(torch.stack([torch.zeros_like(items), items]), 1, own[7:8])
    torch.testing.assert_close(one[0], user_emb[7], rtol=1e-4, atol=1e-5)
    assert not out.requires_grad


@every_case
def test_new_items_are_comparable_where_content_is_read(
    planted: Callable, name: str, heads: bool
) -> None:
    graph = with_isolated_nodes(planted())
    model = model_of(graph, name, heads).eval()
    if not model.modalities:
        with pytest.raises(ValueError, match=f"{type(model).__name__} reads no content"):
            model.item_embedder(*arguments(graph))
        return
    item_emb, embedder = embeddings(model, graph)[1], model.item_embedder(*arguments(graph))
    new = embedder({m: x[:2] for m, x in graph.features.items()})
    assert new.shape == (2, item_emb.size(1)) and new.isfinite().all()
    after = embedder.replace(item_emb)
    assert torch.equal(after[3:], item_emb[3:])
    assert (after[:3] != item_emb[:3]).any(dim=1).all()


@every_case
def test_explanations_add_up_to_the_score(planted: Callable, name: str, heads: bool) -> None:
    graph = with_isolated_nodes(planted())
    model = model_of(graph, name, heads).eval()
    user_emb, item_emb = embeddings(model, graph)
    embedder, explainer = (
        model.user_embedder(*arguments(graph)),
        Explainer(model, *arguments(graph)),
    )
    items = torch.tensor([9, 30, 12])
    new_user = embedder(torch.stack([torch.zeros_like(items), items]), 1)[0]
    for who, emb in ((8, user_emb[8]), (1, user_emb[1]), (items, new_user)):
        explained = explainer.user(who)
        for item in (21, 2):  # one with interactions, and one without
            assert_adds_up(explained.score_parts(item), emb @ item_emb[item])
        if model.modalities:
            cold = model.item_embedder(*arguments(graph)).replace(item_emb)[2]
            assert_adds_up(explained.score_parts(cold), emb @ cold)


@pytest.fixture(scope="module")
def dataset() -> PlantedPreferences:
    return PlantedPreferences(60, 40, mean_degree=8.0, transform=ItemKNNGraph(k=4))


@every_case
def test_a_saved_recommender_gives_the_same_lists(
    planted: Callable, dataset: PlantedPreferences, tmp_path: Path, name: str, heads: bool
) -> None:
    recommender = Recommender(model_of(planted(), name, heads), dataset)
    loaded = Recommender.load(recommender.save(tmp_path / "saved"))
    assert type(loaded.model) is MODELS[name]
    found = [
        (of.recommend(range(60)), of.fold_in([3, 30, 12]), of.similar_items(3))
        for of in (recommender, loaded)
    ]
    for before, after in zip(*found, strict=True):
        assert_frame_equal(before, after)


@every_case
def test_a_recommender_explains_the_score_of_its_lists(
    planted: Callable, dataset: PlantedPreferences, name: str, heads: bool
) -> None:
    recommender = Recommender(model_of(planted(), name, heads), dataset)
    for user, interactions in ((7, None), (None, [3, 30, 12])):
        given = {"user": user} if interactions is None else {"interactions": interactions}
        if interactions is None:
            lists = recommender.recommend(user)
        else:
            lists = recommender.fold_in(interactions)
        best, score = lists["item"].iloc[0], float(lists["score"].iloc[0])
        found = recommender.explain(item=best, **given)
        bias = found.sources.get("popularity", 0.0)
        near = {"rel": 1e-3, "abs": 1e-4}
        assert found.score == pytest.approx(score, **near)
        assert found.sources.sum() == pytest.approx(score, **near)
        assert found.own + found.past_items["value"].sum() + bias == pytest.approx(score, **near)
        assert found.itself + found.similar_items["value"].sum() + bias == pytest.approx(
            score, **near
        )
