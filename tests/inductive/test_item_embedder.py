from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.inductive.item_embedder import ItemAdapter, ItemEmbedder, without_interactions
from gtc_pyg.models import FREEDOM, MGCN, ItemBias, LightGCN, SpectralHead
from gtc_pyg.nn import BPR
from tests.models.graphs import gtc_of

USERS, ITEMS, COLD = 12, 40, 6
WIDTHS = {"image": 5, "text": 7}
RATES, REV, SIMILAR = (
    ("user", "rates", "item"),
    ("item", "rev_rates", "user"),
    ("item", "similar", "item"),
)


def inputs(seed=0, similar=True):
    """Content, edges and weights; the last COLD items have no interactions."""
    generator = torch.Generator().manual_seed(seed)
    features = {m: torch.randn(ITEMS, width, generator=generator) for m, width in WIDTHS.items()}
    mask = torch.rand(USERS, ITEMS, generator=generator) < 0.3
    mask[:, -COLD:] = False
    mask[0, : ITEMS - COLD] = True
    edge = mask.nonzero().t()
    edges, weights = {RATES: edge, REV: edge.flip(0)}, {}
    if similar:
        pairs = (torch.rand(ITEMS, ITEMS, generator=generator) < 0.2).nonzero().t()
        edges[SIMILAR] = pairs
        weights[SIMILAR] = torch.rand(pairs.size(1), generator=generator)
    return features, edges, weights


def model_of(name, **settings):
    _, edges, weights = inputs()
    if name == "gtc":
        graph = SimpleNamespace(num_users=USERS, num_items=ITEMS, in_channels=WIDTHS)
        graph.edge_index_dict, graph.edge_weight_dict = edges, weights
        return gtc_of(graph, **settings).eval()
    torch.manual_seed(1)
    cls = {"freedom": FREEDOM, "mgcn": MGCN}[name]
    model = cls(USERS, ITEMS, WIDTHS, hidden_channels=8, **settings).eval()
    model.prepare(edges, weights, spectral_start=False)
    return model


def rows(features, index):
    return {name: x[index] for name, x in features.items()}


def heads_of(strength=0.4, debiasing=1.0):
    return [SpectralHead(5, strength, debiasing), ItemBias()]


SETTINGS = [
    ("gtc", {}),
    ("gtc", {"ranking": BPR(scale=3.0)}),
    ("gtc", {"heads": heads_of}),
    ("gtc", {"num_item_layers": 0, "heads": heads_of}),
    ("gtc", {"condition": "item", "user_ids": False}),
    ("gtc", {"condition": "neighbors", "num_layers": 0}),
    ("freedom", {}),
    ("freedom", {"heads": heads_of}),
    ("mgcn", {}),
    ("mgcn", {"heads": heads_of, "ranking": BPR(scale=3.0)}),
]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_new_items_are_comparable_and_known_ones_stay(name, settings):
    features, edges, weights = inputs()
    if "heads" in settings:
        settings = {**settings, "heads": settings["heads"]()}
    model = model_of(name, **settings)
    with torch.no_grad():
        item_emb = model(features, edges, weights)[1]
    before = item_emb.clone(), {key: x.clone() for key, x in features.items()}
    embedder = model.item_embedder(features, edges, weights)
    new = embedder(rows(features, torch.tensor([3, 0])))
    assert new.shape == (2, item_emb.size(1))
    assert new.isfinite().all()
    out = embedder.replace(item_emb)
    assert torch.equal(out[:-COLD], item_emb[:-COLD])
    assert not torch.equal(out[-COLD:], item_emb[-COLD:])
    assert torch.equal(item_emb, before[0])
    assert all(torch.equal(features[key], x) for key, x in before[1].items())


def without_graph(embedder, item_emb):
    """Rows of items without interactions as predicted, without the part from the item graph."""
    return embedder.replace(torch.zeros_like(item_emb))


def test_a_fifth_of_the_length_is_from_the_item_graph():
    features, edges, weights = inputs()
    model = model_of("gtc", heads=[ItemBias()])
    embedder, emb = (
        model.item_embedder(features, edges, weights),
        model(features, edges, weights)[1],
    )
    cold, width = torch.arange(ITEMS - COLD, ITEMS), emb.size(1) - 1
    before, after = without_graph(embedder, emb), embedder.replace(emb)
    warm = torch.arange(ITEMS - COLD)
    assert torch.equal(after[warm], emb[warm])
    torch.testing.assert_close(after[cold, width], before[cold, width])
    lengths = [x[cold, :width].norm(dim=1).mean() for x in (before, emb)]
    expected = before[cold, :width] + 0.2 * lengths[0] / lengths[1] * emb[cold, :width]
    torch.testing.assert_close(after[cold, :width], expected)


@pytest.mark.parametrize("name", ["gtc", "freedom"])
@pytest.mark.parametrize("similar", [True, False])
def test_content_of_a_cold_item_gives_its_embedding(name, similar):
    features, edges, weights = inputs(similar=similar)
    settings = {} if similar else {"num_item_layers": 0}
    embedder = model_of(name, **settings).item_embedder(features, edges, weights)
    with torch.no_grad():
        item_emb = model_of(name, **settings)(features, edges, weights)[1]
    cold = torch.arange(ITEMS - COLD, ITEMS)
    torch.testing.assert_close(
        embedder(rows(features, cold)),
        without_graph(embedder, item_emb)[cold],
        atol=1e-5,
        rtol=1e-4,
    )
    pair = embedder({m: torch.ones(2, width) for m, width in WIDTHS.items()})
    torch.testing.assert_close(pair[0], pair[1])


@pytest.mark.parametrize("name", ["gtc", "freedom"])
def test_order_of_items_and_edges_does_not_matter(name):
    features, edges, weights = inputs()
    model = model_of(name)
    generator = torch.Generator().manual_seed(7)
    new = {m: torch.randn(5, width, generator=generator) for m, width in WIDTHS.items()}
    expected = model.item_embedder(features, edges, weights)(new)
    order = torch.tensor([4, 2, 0, 1, 3])
    embedder = model.item_embedder(features, edges, weights)
    torch.testing.assert_close(embedder(rows(new, order)), expected[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        torch.cat([embedder(rows(new, slice(i, i + 1))) for i in range(5)]),
        expected,
        atol=1e-5,
        rtol=1e-4,
    )
    where = torch.randperm(ITEMS, generator=generator)  # new row of each item
    moved = model_of(name)
    with torch.no_grad():
        moved.item_emb.weight[where] = model.item_emb.weight
    order = torch.randperm(edges[SIMILAR].size(1), generator=generator)
    edge = torch.stack([edges[RATES][0], where[edges[RATES][1]]]).flip(1)
    pairs = {RATES: edge, REV: edge.flip(0), SIMILAR: where[edges[SIMILAR]][:, order]}
    content = {m: torch.empty_like(x).index_copy_(0, where, x) for m, x in features.items()}
    found = moved.item_embedder(content, pairs, {SIMILAR: weights[SIMILAR][order]})(new)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def planted(num=120, cold=20):
    """Embeddings that are a linear map of the text alone; a graph without similar items."""
    generator = torch.Generator().manual_seed(3)
    features = {m: torch.randn(num, width, generator=generator) for m, width in WIDTHS.items()}
    true = F.normalize(features["text"], dim=1) @ torch.randn(7, 4, generator=generator)
    edge = torch.stack([torch.zeros(num - cold, dtype=torch.long), torch.arange(num - cold)])
    graph = LightGCN(1, num).csr_graph({RATES: edge, REV: edge.flip(0)})
    return features, true, graph


def test_the_map_and_the_modality_it_is_of_are_found():
    features, true, graph = planted()
    target = true.clone()
    target[-20:] = 1e6  # nobody has touched these: what stands there is not looked at
    embedder = ItemEmbedder(features, list(WIDTHS), ItemAdapter(target), graph)
    assert embedder.weights["text"] > 0.99
    assert sum(embedder.weights.values()) == pytest.approx(1.0)
    error = (without_graph(embedder, target)[-20:] - true[-20:]).pow(2).sum()
    assert error < 0.05 * (true[-20:] - true[:-20].mean(0)).pow(2).sum()


def clustered(num=60, cold=10, similar=True):
    """Embeddings of what both modalities tell and of a cluster that the item graph alone tells.

    The last item has no similar items with interactions.
    """
    generator = torch.Generator().manual_seed(4)
    features = {m: torch.randn(num, width, generator=generator) for m, width in WIDTHS.items()}
    cluster = torch.arange(num) % 5
    target = F.normalize(features["text"], dim=1) @ torch.randn(7, 4, generator=generator)
    target += F.normalize(features["image"], dim=1) @ torch.randn(5, 4, generator=generator)
    target += torch.randn(5, 4, generator=generator)[cluster]
    edge = torch.stack([torch.zeros(num - cold, dtype=torch.long), torch.arange(num - cold)])
    edges, weights = {RATES: edge, REV: edge.flip(0)}, None
    pairs = (cluster.view(-1, 1) == cluster).nonzero().t()  # itself and cold ones included
    pairs = pairs[:, (pairs[1] != num - 1) | (pairs[0] >= num - cold)]
    weight = torch.rand(pairs.size(1), generator=generator)
    if similar:
        edges[SIMILAR], weights = pairs, {SIMILAR: weight}
    target[-cold:] = 1e6  # nobody has touched these: what stands there is not looked at
    graph = LightGCN(1, num).csr_graph(edges, weights)
    return features, target, graph, (pairs, weight)


@pytest.mark.parametrize("similar", [True, False])
def test_regression_and_neighbours_follow_the_equations(similar):
    features, target, graph, (pairs, weight) = clustered(similar=similar)
    embedder = ItemEmbedder(features, list(WIDTHS), ItemAdapter(target), graph)
    a, b = embedder.mix
    assert min(a, min(embedder.weights.values())) > 0.05
    assert b > 0.1 or not similar
    unit = {m: F.normalize(x - x[:50].mean(0), dim=1).double() for m, x in features.items()}
    y = target[:50].double()
    mean = y.mean(0)

    def cosine(i, j):
        return sum(w * float(unit[m][i] @ unit[m][j]) for m, w in embedder.weights.items())

    kernel = torch.tensor([[cosine(i, j) - 1 for j in range(50)] for i in range(60)]).double().exp()
    alpha = torch.linalg.solve(kernel[:50] + embedder.penalty * torch.eye(50), y - mean)
    for i in range(50, 60):
        p = kernel[i] @ alpha
        near = dict.fromkeys(sorted(range(50), key=lambda j: -kernel[i, j])[:9], 1.0)
        if similar:
            links = zip(*pairs.tolist(), weight.tolist(), strict=True)
            near = {source: w for source, to, w in links if to == i and source < 50}
        g = p
        if near:
            g = sum(w * y[j] for j, w in near.items()) / sum(near.values()) - mean
        assert bool(near) == (i < 59 or not similar)
        found = without_graph(embedder, target)[i].double()
        torch.testing.assert_close(found, mean + a * p + b * g, atol=1e-4, rtol=1e-3)
        new = embedder(rows(features, slice(i, i + 1)))[0].double()
        torch.testing.assert_close(new, found, atol=1e-5, rtol=1e-4)


def test_absent_content_is_never_read():
    features, target, graph, _ = clustered()
    has = torch.ones(60, dtype=torch.bool)
    has[[1, 7, 55]] = False
    found = []
    for garbage in (0.0, 1e3):
        x = torch.where(has.view(-1, 1), features["text"], garbage)
        content = {**features, "text": x, "has_text": has}
        embedder = ItemEmbedder(content, list(WIDTHS), ItemAdapter(target), graph)
        found += [embedder.replace(target), embedder(rows(content, torch.tensor([1, 2, 55])))]
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])


def test_an_absent_modality_counts_as_nothing():
    features, edges, weights = inputs()
    has = torch.ones(ITEMS, dtype=torch.bool)
    has[[1, ITEMS - 1]] = False
    settings = {"incomplete": ("text",)}
    embedders = []
    for garbage in (0.0, 1e3):
        x = features["text"].clone()
        x[~has] = garbage
        content = {**features, "text": x, "has_text": has}
        embedders.append(model_of("gtc", **settings).item_embedder(content, edges, weights))
    new = rows(features, slice(0, 3))
    lacks = torch.tensor([True, False, True])
    first = embedders[0]({**new, "has_text": lacks})
    assert first.isfinite().all()
    torch.testing.assert_close(first, embedders[1]({**new, "has_text": lacks}))
    other = {**new, "text": torch.where(lacks.view(-1, 1), new["text"], 50.0), "has_text": lacks}
    torch.testing.assert_close(embedders[0](other), first)
    assert not torch.allclose(embedders[0]({**new, "has_text": ~lacks}), first)


def test_users_with_different_filters_rank_new_items_differently():
    features, edges, weights = inputs()
    model = model_of("gtc", strength=5.0)
    with torch.no_grad():
        model.user_emb.weight.copy_(model.user_emb.weight[:1].expand(USERS, -1))
        for lin in (
            m for m in model.content_filter.views.modules() if isinstance(m, torch.nn.Linear)
        ):
            lin.weight.mul_(5)
        user_emb, _ = model(features, edges, weights)
    generator = torch.Generator().manual_seed(5)
    new = {m: torch.randn(30, width, generator=generator) for m, width in WIDTHS.items()}
    item = model.item_embedder(features, edges, weights)(new)
    orders = {tuple((u @ item.t()).argsort().tolist()) for u in user_emb}
    assert len(orders) > USERS // 2


def test_no_cold_items_and_no_new_ones():
    features, edges, weights = inputs()
    edge = torch.cartesian_prod(torch.arange(2), torch.arange(ITEMS)).t()
    edges = {**edges, RATES: edge, REV: edge.flip(0)}
    model = model_of("gtc", heads=[ItemBias()])
    with torch.no_grad():
        item_emb = model(features, edges, weights)[1]
    embedder = model.item_embedder(features, edges, weights)
    assert torch.equal(embedder.replace(item_emb), item_emb)
    assert embedder(rows(features, slice(0, 0))).shape == (0, item_emb.size(1))
    assert embedder(rows(features, slice(0, 2))).isfinite().all()


def test_all_content_alike_is_no_number_nowhere():
    features, edges, weights = inputs()
    alike = {m: torch.ones_like(x) for m, x in features.items()}
    for name in ("gtc", "freedom"):
        embedder = model_of(name).item_embedder(alike, edges, weights)
        assert embedder(rows(alike, slice(0, 2))).isfinite().all()


def test_refuses_what_it_cannot_embed():
    features, edges, weights = inputs()
    with pytest.raises(ValueError, match="LightGCN reads no content"):
        LightGCN(USERS, ITEMS).item_embedder(features, edges, weights)
    embedder = model_of("gtc").item_embedder(features, edges, weights)
    with pytest.raises(ValueError, match="lacks 'text'"):
        embedder({"image": features["image"]})
    with pytest.raises(ValueError, match=r"'text' must be \[n, 7\]"):
        embedder({**features, "text": features["image"]})
    few = torch.tensor([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="at least three items"):
        model_of("gtc").item_embedder(features, {**edges, RATES: few, REV: few.flip(0)}, weights)


def test_a_mask_that_is_not_given_says_that_all_is_there():
    features, edges, weights = inputs()
    model = model_of("gtc", incomplete=("text",))
    has = torch.ones(ITEMS, dtype=torch.bool)
    embedder = model.item_embedder({**features, "has_text": has}, edges, weights)
    new = rows(features, slice(0, 2))
    torch.testing.assert_close(embedder(new), embedder({**new, "has_text": has[:2]}))


def test_the_mean_stands_in_for_absent_content():
    features, edges, weights = inputs()
    embedder = model_of("gtc").item_embedder(features, edges, weights)
    new = rows(features, slice(0, 2))
    mean = features["text"][: ITEMS - COLD].mean(dim=0)
    absent = {**new, "has_text": torch.tensor([False, True])}
    filled = {**new, "text": torch.stack([mean, new["text"][1]])}
    torch.testing.assert_close(embedder(absent), embedder(filled), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(embedder(absent)[0], embedder(new)[0], atol=1e-3)


def test_a_graph_without_interactions_is_one_user_with_nothing():
    graph = without_interactions(torch.zeros(4, 3))
    assert (graph.num_users, graph.num_items) == (1, 4)
    assert graph.mean_of_users(torch.ones(1, 2)).abs().sum() == 0


class Fixed:
    """Columns that a head would have."""

    def __init__(self, columns, in_loss=False):
        self.columns, self.in_loss = columns, in_loss

    def items(self, graph, num_item_layers):
        return self.columns


def test_columns_of_heads_are_predicted_like_the_target():
    features, edges, _ = inputs(similar=False)
    graph = model_of("freedom", num_item_layers=0).csr_graph(edges)
    target, beside = torch.randn(ITEMS, 3), torch.randn(ITEMS, 2)
    new = rows(features, torch.tensor([1, 4, 5]))

    def embedded(*columns):
        names, adapter = ["image", "text"], ItemAdapter(target)
        return ItemEmbedder(features, names, adapter, graph, columns)(new)

    out = embedded(Fixed(beside))
    assert out.shape == (3, 5) and out[:, 3:].abs().sum() > 0
    torch.testing.assert_close(out[:, :3], embedded())
    again = embedded(Fixed(torch.cat([target, 3 * beside], dim=1)))
    torch.testing.assert_close(again[:, 3:6], out[:, :3])
    torch.testing.assert_close(again[:, 6:], 3 * out[:, 3:])


def test_columns_that_losses_see_are_the_mean_of_known_items():
    features, edges, _ = inputs(similar=False)
    graph = model_of("freedom", num_item_layers=0).csr_graph(edges)
    target, bias = torch.randn(ITEMS, 3), torch.arange(ITEMS).float().view(-1, 1)
    columns = [Fixed(bias, in_loss=True)]
    embedder = ItemEmbedder(features, ["image", "text"], ItemAdapter(target), graph, columns)
    out = embedder(rows(features, torch.tensor([1, 4, 5])))
    assert embedder.known.sum() == ITEMS - COLD
    torch.testing.assert_close(out[:, 3], bias[: ITEMS - COLD].mean().expand(3))
