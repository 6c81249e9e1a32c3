r"""Hostile graphs for every public function that takes one: run in a process of its own.

``python -m tests.functional.native_calls SEED`` prints a line of JSON for each call that went
wrong, and the names of the calls at the end. A crash ends the process before that.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from gtc_pyg import functional, transforms
from gtc_pyg.evaluation import Ranker, evaluate
from gtc_pyg.explain import Explainer
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.graph.make_graph import interactions_graph
from gtc_pyg.imputation import ModalityFiller
from gtc_pyg.loader import InteractionLoader, NegativeSampler, SubgraphLoader
from gtc_pyg.models import FREEDOM, GTC, MGCN, ContentFilter, LightGCN
from gtc_pyg.nn import BPR, ConditionalDenoiser, ModalityEncoder, NoiseSchedule

U, I, D = 6, 5, 4  # users, items, width
WHOLE = [getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
NOT_WHOLE = [torch.bool, torch.half, torch.bfloat16, torch.float, torch.double, torch.cfloat]


def make_edges() -> Tensor:
    r"""Every user has two or three items, and no item all users."""
    pairs = [(u, (u + j) % I) for u in range(U) for j in range(2 + u % 2)]
    return torch.tensor(pairs).t().contiguous()


EDGES = make_edges()
SIMILAR = torch.stack([torch.arange(I), torch.arange(I).roll(1)])
CONTENT = {"image": torch.randn(I, 3, generator=torch.Generator().manual_seed(0))}
GRAPHS = {USER_TO_ITEM: EDGES, ITEM_TO_USER: EDGES.flip(0), SIMILAR_ITEMS: SIMILAR}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model_of(kind: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    if kind is GTC:
        parts = {"content_filter": ContentFilter({"image": 3}, D), "ranking": BPR(), "heads": []}
        return GTC(U, I, {"image": 3}, **parts, edge_dropout=0.0)
    widths = [] if kind is LightGCN else [{"image": 3}]
    return kind(U, I, *widths, hidden_channels=D)


def data_of(graphs: dict) -> HeteroData:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = U, I
    data["item"].x_image = CONTENT["image"]
    for key, edges in graphs.items():
        data[key].edge_index = edges
    return data


def of_models(kind: Callable[..., Any], key: Any) -> dict[str, Callable[[Any], Any]]:
    r"""Calls of a model, the edges of one type being given."""
    user, item = EDGES
    batch = user, item, NegativeSampler(EDGES, U, I)(user, seeded())

    def graphs(adj: Any) -> dict:
        return {**GRAPHS, key: adj}

    return {
        "forward": lambda adj: model_of(kind)(CONTENT, graphs(adj)),
        "loss": lambda adj: sum(
            model_of(kind).loss(*batch, CONTENT, graphs(adj), None, seeded()).values()
        ),
        "user_embedder": lambda adj: model_of(kind).user_embedder(CONTENT, graphs(adj))(EDGES, U),
        "training_graph": lambda adj: model_of(kind)(
            CONTENT, model_of(kind).training_graph(graphs(adj))
        ),
    }


def denoise(adj: Any) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(U, D), torch.randn(I, D)
    return ConditionalDenoiser(D, D, condition="user")(x, adj, torch.randn(I, D), 3)


def fill(adj: Any) -> Tensor:
    torch.manual_seed(0)
    layers = ConditionalDenoiser(D, D, condition="neighbors"), NoiseSchedule(10, "cosine")
    emb = torch.randn(U, D), torch.randn(I, D)
    absent = torch.arange(I) > 1
    encoder = ModalityEncoder(3, D)
    return encoder.fill(
        CONTENT["image"], absent, *layers, emb, adj, num_steps=2, generator=seeded()
    )


def fill_modality(edges: Any) -> Tensor:
    torch.manual_seed(0)
    features = {**CONTENT, "text": torch.randn(I, 3), "has_text": torch.arange(I) != 2}
    filler = ModalityFiller("text", 3, channels=3, hidden_channels=4, spectral_channels=2)
    filler.fit(features, edges, U, epochs=1, num_folds=2)
    return filler(features, edges, U, 2, 2, seeded())["text"]


def start_from(edges: Any) -> Tensor:
    model = model_of(LightGCN)
    model.start_from(edges)
    return model.user_emb.weight.detach()


def sampled(key: Any) -> Callable[[Any], Tensor]:
    def batches(edges: Any) -> Tensor:
        loader = SubgraphLoader(data_of({**GRAPHS, key: edges}), [-1, -1], batch_size=4)
        triples = [torch.stack(list(batch.triple)).flatten() for batch in loader]
        return torch.cat(triples)

    return batches


def knn_graph(edges: Any) -> Tensor:
    data = data_of({("item", "similar_text", "item"): edges})
    return transforms.ItemKNNGraph(k=2)(data)[SIMILAR_ITEMS].edge_weight


def spectral(edges: Any) -> Tensor:
    data = data_of({("item", "similar_text", "item"): edges})
    return transforms.SpectralFeatures("text", 2)(data)["item"].x_text


def explained(key: Any) -> Callable[[Any], Any]:
    def score(adj: Any) -> Tensor:
        return Explainer(model_of(GTC), CONTENT, {**GRAPHS, key: adj}).user(0).score_parts(1).score

    return score


def topk(edges: Any) -> Tensor:
    generator = seeded()
    embeddings = (torch.randn(n, D, generator=generator) for n in (U, I))
    return functional.inner_product_topk(*embeddings, 2, edges)[0]


def evaluated(edges: Any) -> list[float]:
    generator = seeded()
    user_emb, item_emb = (torch.randn(n, D, generator=generator) for n in (U, I))
    return list(evaluate(user_emb, item_emb, EDGES[:, ::2], [edges], ks=[2]).values())


def held_out(edges: Any) -> list[float]:
    generator = seeded()
    user_emb, item_emb = (torch.randn(n, D, generator=generator) for n in (U, I))
    return list(evaluate(user_emb, item_emb, edges, [], ks=[2]).values())


# Functions of an edge_index of users and items.
OF_EDGES: dict[str, Callable[[Any], Any]] = {
    "NegativeSampler": lambda e: NegativeSampler(e, U, I)(EDGES[0], seeded()),
    "InteractionLoader": lambda e: [torch.stack(list(b)) for b in InteractionLoader(e, U, I, 4)],
    "evaluate exclude": evaluated,
    "evaluate": held_out,
    "Ranker": lambda e: Ranker(e, [e], U).rank(torch.eye(U), torch.eye(U)[:I], EDGES[0], 2),
    "k_core": lambda e: transforms.k_core(e, U, I, 2),
    "spectral_items": lambda e: functional.spectral_items(e, U, I, 2).abs(),
    "spectral_factors": lambda e: [x.abs() for x in functional.spectral_factors(e, U, I, 2)],
    "low_pass_factors": lambda e: functional.low_pass_factors(e, U, I, 2).item.abs(),
    "degree_sensitive_sample": lambda e: functional.degree_sensitive_sample(e, U, I, 3, seeded()),
    "inner_product_topk": topk,
    "interactions_graph": lambda e: interactions_graph(e, U, I)[USER_TO_ITEM].to_dense(),
    "UserEmbedder": lambda e: model_of(LightGCN).user_embedder(CONTENT, GRAPHS)(e, U),
    "start_from": start_from,
    "ModalityFiller": fill_modality,
}
if WITH_TORCH_SPARSE:
    OF_EDGES["SubgraphLoader"] = sampled(USER_TO_ITEM)
# Functions of an adjacency in any form, users to items.
OF_ADJACENCY: dict[str, Callable[[Any], Any]] = {
    "to_csr": lambda adj: functional.to_csr(adj, I, U).to_dense(),
    "ConditionalDenoiser": denoise,
    "ModalityEncoder.fill": fill,
    "Explainer": explained(USER_TO_ITEM),
}
for model_class in (LightGCN, FREEDOM, MGCN, GTC):
    for call, run in of_models(model_class, USER_TO_ITEM).items():
        OF_ADJACENCY[f"{model_class.__name__}.{call}"] = run
# The same of edges from items to users, and between items.
OF_REVERSE = {
    "GTC.loss": of_models(GTC, ITEM_TO_USER)["loss"],
    "Explainer": explained(ITEM_TO_USER),
}
OF_ITEMS = {
    "ItemKNNGraph": knn_graph,
    "SpectralFeatures": spectral,
    "GTC.forward": of_models(GTC, SIMILAR_ITEMS)["forward"],
    "FREEDOM.loss": of_models(FREEDOM, SIMILAR_ITEMS)["loss"],
    "MGCN.loss": of_models(MGCN, SIMILAR_ITEMS)["loss"],
}
if WITH_TORCH_SPARSE:
    OF_REVERSE["SubgraphLoader"] = sampled(ITEM_TO_USER)
    OF_ITEMS["SubgraphLoader"] = sampled(SIMILAR_ITEMS)
TO_ITEM = functional.to_csr(EDGES, I, U)
TO_USER = functional.to_csr(EDGES.flip(0), U, I)
# Functions of CSR matrices [items, users] that are made already.
OF_MATRICES: dict[str, Callable[[Any], Any]] = {
    "spmm": lambda adj: functional.spmm(adj, TO_USER, torch.ones(U, D)),
    "spmm transposed": lambda adj: functional.spmm(TO_USER, adj, torch.ones(I, D)),
    "spmm_learning": lambda adj: functional.spmm_learning(
        adj, torch.ones(U, D), torch.ones(U, D), TO_USER
    ),
    "spmm_learning picked": lambda adj: functional.spmm_learning(
        TO_USER, torch.ones(I, D), torch.ones(I, D), adj
    ),
    "stack_interactions": lambda adj: functional.stack_interactions(adj, TO_USER).to_dense(),
    "select_rows": lambda adj: functional.select_rows(adj, torch.arange(I)).to_dense(),
    "select_columns": lambda adj: functional.select_columns(adj, torch.arange(U)).to_dense(),
    "sampled_softmax": lambda adj: functional.sampled_softmax(
        torch.ones(I, D), torch.ones(U, D), torch.arange(I), torch.arange(I), torch.arange(2), adj
    ),
}
GROUPS = [
    ("edges", OF_EDGES, EDGES, U, I),
    ("adjacency", OF_ADJACENCY, EDGES, U, I),
    ("reverse", OF_REVERSE, EDGES.flip(0), I, U),
    ("items", OF_ITEMS, SIMILAR, I, I),
]
ONE_FORM = (*OF_EDGES, "ItemKNNGraph", "SpectralFeatures")


def sparse_forms(edges: Tensor, num_src: int, num_dst: int) -> dict[str, Any]:
    r"""The same graph in every sparse form."""
    value, size = torch.ones(edges.size(1)), (num_dst, num_src)
    coo = torch.sparse_coo_tensor(edges.flip(0), value, size).coalesce()
    csr = coo.to_sparse_csr()
    small = csr.crow_indices().int(), csr.col_indices().int()
    forms = {
        "coo": coo,
        "csr": csr,
        "csc": coo.to_sparse_csc(),
        "csr of int32": torch.sparse_csr_tensor(*small, csr.values(), size=size),
        "csr of doubles": csr.double(),
        "csr of halves": csr.to(torch.bfloat16),
    }
    if WITH_TORCH_SPARSE:
        src, dst = edges
        forms["SparseTensor"] = SparseTensor(row=dst, col=src, sparse_sizes=size)
    return forms


def right(rng: random.Random, edges: Tensor, num_src: int, num_dst: int) -> Iterator[tuple]:
    r"""What means the same graph: name, value, and whether it is an edge_index."""
    for dtype in WHOLE:
        yield str(dtype), edges.to(dtype), True
    order = torch.tensor(rng.sample(range(edges.size(1)), edges.size(1)))
    yield "strided", torch.stack([edges, edges], dim=-1)[..., 0], True
    yield "EdgeIndex", EdgeIndex(edges), True
    yield "EdgeIndex of int32", EdgeIndex(edges.int(), sparse_size=(num_src, num_dst)), True
    yield "another order", edges[:, order], None
    for name, adj in sparse_forms(edges, num_src, num_dst).items():
        yield name, adj, False


def wrong(rng: random.Random, edges: Tensor, num_src: int, num_dst: int) -> Iterator[tuple]:
    r"""What is no graph of that size: name and value."""
    num = edges.size(1)
    for dtype in NOT_WHOLE:
        yield str(dtype), edges.to(dtype)
    for shape in [(), (0,), (2,), (num, 2), (3, num), (1, num), (2, num, 1), (0, num), (2, 2, 2)]:
        yield f"shape {list(shape)}", torch.zeros(shape, dtype=torch.long)
    yield "turned", edges.t()
    yield "three rows", torch.cat([edges, edges[:1]])
    yield "a list", edges.tolist()
    yield "an array", edges.numpy()
    yield "nothing", None
    for row, limit in enumerate((num_src, num_dst)):
        for bad in (-1, limit, rng.choice([-(2**63), 2**31, 2**40, 2**63 - 1, -(2**31)])):
            changed = edges.clone()
            changed[row, rng.randrange(num)] = bad
            yield f"id {bad} in row {row}", changed
    changed = edges.to(torch.int8)
    changed[1, 0] = -1
    yield "id of int8", changed
    yield "id of uint8", changed.view(torch.uint8)
    yield "id of uint64", (changed.long() * 2**30).view(torch.uint64)
    yield "block rows", torch.eye(4).to_sparse_bsr((2, 2))
    csr = sparse_forms(edges, num_src, num_dst)["csr"]
    crow, col, value = csr.crow_indices(), csr.col_indices(), csr.values()

    def compressed(kind: str, pointer: Tensor, index: Tensor, values: Tensor = value) -> Any:
        of = torch.sparse_csr_tensor if kind == "csr" else torch.sparse_csc_tensor
        size = (num_dst, num_src) if kind == "csr" else (num_src, num_dst)
        return of(pointer, index, values, size=size, check_invariants=False)

    far = rng.choice([10**6, 2**40, -(2**40), num])
    pointers = {
        "beyond": torch.where(torch.arange(num_dst + 1) == num_dst, far + num + 1, crow),
        "falls": torch.where(torch.arange(num_dst + 1) == 1, 10**6, crow),
        "starts late": torch.where(torch.arange(num_dst + 1) == 0, 1, crow),
    }
    for name, pointer in pointers.items():
        yield f"csr {name}", compressed("csr", pointer, col)
    column = col.clone()
    column[rng.randrange(num)] = rng.choice([-1, num_src, 2**31, 2**40, -(2**40)])
    yield "csr column", compressed("csr", crow, column)
    yield "csr of complex", csr.to(torch.cfloat)
    yield "csr not finite", compressed("csr", crow, col, value / 0)
    yield (
        "csr turned",
        csr.t().to_sparse_csr() if num_src != num_dst else compressed("csr", crow, column),
    )
    # A CSC matrix of the right shape with row indices that lead outside.
    csc = csr.to_sparse_csc()
    index = csc.row_indices().clone()
    index[rng.randrange(num)] = rng.choice([-1, num_dst, 2**40])
    yield (
        "csc row",
        torch.sparse_csc_tensor(
            csc.ccol_indices(), index, csc.values(), size=csc.shape, check_invariants=False
        ),
    )
    outside = edges.flip(0).clone()
    outside[rng.randrange(2), rng.randrange(num)] = rng.choice([-1, 2**40, 10**6])
    yield "coo", torch.sparse_coo_tensor(outside, value, csr.shape, check_invariants=False)
    if WITH_TORCH_SPARSE:
        sizes = {"sparse_sizes": (num_dst, num_src), "is_sorted": True, "trust_data": True}
        yield "SparseTensor col", SparseTensor(rowptr=crow, col=column, **sizes)
        yield "SparseTensor row", SparseTensor(row=outside[0].abs() + 10**6, col=col, **sizes)
        yield "SparseTensor pointer", SparseTensor(rowptr=pointers["falls"], col=col, **sizes)


def flat(x: Any) -> Tensor:
    r"""All numbers of a result."""
    if isinstance(x, Tensor):
        return x.detach().double().flatten()
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        return torch.cat([flat(part) for part in x]) if len(x) else torch.empty(0)
    return torch.tensor([float(x)])


def check(name: str, run: Callable, edges: Tensor, rng: random.Random, *sizes: int) -> Iterator:
    any_form = name not in ONE_FORM
    expected = flat(run(edges))
    if not expected.isfinite().all():
        yield name, "int64", "is not finite"
    for case, value, is_edge_index in right(rng, edges, *sizes):
        try:
            found = flat(run(value))
        except ValueError as error:
            if is_edge_index is not False or any_form:
                yield name, case, f"is refused: {error}"
            continue
        if is_edge_index is None:
            continue  # draws follow the order; it is enough that nothing crashes
        if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-4):
            yield name, case, "gives another result"
    for case, value in wrong(rng, edges, *sizes):
        if name == "inner_product_topk" and value is None:
            continue  # it may be left out
        try:
            run(value)
        except ValueError as error:
            if "\n" in str(error):
                yield name, case, f"has an error of several lines: {error}"
        except Exception as error:
            yield name, case, f"raises {type(error).__name__}: {error}"
        else:
            yield name, case, "is taken"


def check_matrices(name: str, run: Callable, rng: random.Random) -> Iterator:
    if not flat(run(TO_ITEM)).isfinite().all():
        yield name, "csr", "is not finite"
    usual = ("csr turned", "csr not finite", "csr of complex")  # shapes fit, or are looked at there
    for case, value in wrong(rng, EDGES, U, I):
        if case not in usual:
            try:
                run(value)
            except ValueError:
                continue
            except Exception as error:
                yield name, case, f"raises {type(error).__name__}: {error}"
            else:
                yield name, case, "is taken"


def main(seed: int) -> None:
    warnings.simplefilter("ignore")
    rng, names = random.Random(seed), []
    for group, functions, edges, *sizes in GROUPS:
        for name, run in functions.items():
            print(f"{group} {name}", file=sys.stderr, flush=True)
            for where, case, what in check(name, run, edges, rng, *sizes):
                print(json.dumps([f"{group} {where}", case, what]))
            names.append(f"{group} {name}")
    for name, run in OF_MATRICES.items():
        print(f"matrices {name}", file=sys.stderr, flush=True)
        for found in check_matrices(name, run, rng):
            print(json.dumps(found))
        names.append(f"matrices {name}")
    print(json.dumps(names))


if __name__ == "__main__":
    main(int(sys.argv[1]))
