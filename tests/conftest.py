r"""A graph for all models, every form of an adjacency, a watch on what a call leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.loader import NegativeSampler
from gtc_pyg.transforms import ItemKNNGraph


@pytest.fixture(params=["edge_index", "EdgeIndex", "csr", "SparseTensor"])
def to_adj(request: pytest.FixtureRequest) -> Callable[..., Any]:
    r"""``(edge_index, num_src, num_dst, weight)`` to one form; the sparse ones hold the weights."""
    if request.param == "SparseTensor":
        reason = "torch_sparse is not installed"
        sparse_tensor = pytest.importorskip("torch_sparse", reason=reason).SparseTensor

    def convert(
        edge_index: Tensor, num_src: int, num_dst: int, weight: Tensor | None = None
    ) -> Any:
        if request.param == "edge_index":
            return edge_index
        if request.param == "EdgeIndex":
            return EdgeIndex(edge_index.contiguous(), sparse_size=(num_src, num_dst))
        value = torch.ones(edge_index.size(1)) if weight is None else weight
        if request.param == "csr":
            coo = torch.sparse_coo_tensor(edge_index.flip(0), value, (num_dst, num_src))
            return coo.to_sparse_csr()
        src, dst = edge_index
        return sparse_tensor(row=dst, col=src, value=weight, sparse_sizes=(num_dst, num_src))

    return convert


@cache
def _dataset(
    num_users: int, num_items: int, modalities: tuple[str, ...], k: int | None, **options: Any
) -> PlantedPreferences:
    transform = None if k is None else ItemKNNGraph(k=k)
    return PlantedPreferences(num_users, num_items, modalities, transform=transform, **options)


@pytest.fixture(scope="session")
def planted_dataset() -> Callable[..., PlantedPreferences]:
    r"""``planted_dataset(60, 40, k=5)``: made once a session; each call gets a copy to change.

    ``k`` counts the neighbours of an item in the content graph; :obj:`None` leaves it out.
    """

    def make(
        num_users: int = 60,
        num_items: int = 40,
        modalities: Sequence[str] = ("image", "text"),
        k: int | None = 5,
        seed: int = 1,
        mean_degree: float = 8.0,
    ) -> PlantedPreferences:
        options = {"seed": seed, "mean_degree": mean_degree}
        return copy.deepcopy(_dataset(num_users, num_items, tuple(modalities), k, **options))

    return make


@pytest.fixture(scope="module")
def dataset(planted_dataset: Callable[..., PlantedPreferences]) -> PlantedPreferences:
    r"""60 users and 40 items with image, text and a content graph; a copy for each test file."""
    return planted_dataset()


@cache
def _planted(modalities: tuple[str, ...]) -> SimpleNamespace:
    dataset = _dataset(60, 40, modalities, 4, seed=0, mean_degree=8.0)
    data = dataset[0]
    return SimpleNamespace(
        num_users=60,
        num_items=40,
        in_channels={name: data["item"][f"x_{name}"].size(1) for name in modalities},
        features={name: data["item"][f"x_{name}"] for name in modalities},
        edge_index_dict=data.edge_index_dict,
        edge_weight_dict=data.edge_weight_dict,
        val=dataset.view("val")["user", "rates", "item"].edge_label_index,
        test=dataset.view("test")["user", "rates", "item"].edge_label_index,
    )


@pytest.fixture
def planted() -> Callable[..., SimpleNamespace]:
    r"""``planted('image', 'text')``: 60 users and 40 items, all that a model takes."""

    def make(*modalities: str) -> SimpleNamespace:
        return copy.deepcopy(_planted(modalities or ("image", "text")))

    return make


def _members(module: torch.nn.Module) -> list[dict[str, Any]]:
    kept = (dict, list, set)
    return [
        {name: copy.copy(value) if isinstance(value, kept) else value for name, value in found}
        for found in (vars(part).items() for part in module.modules())
    ]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [x for part in value for x in _tensors(part)] if isinstance(value, Sequence) else []


@pytest.fixture
def unchanged() -> Callable[..., AbstractContextManager[None]]:
    r"""``with unchanged(module, *inputs)``: no attribute, weight, buffer or input may change."""

    @contextmanager
    def watch(module: torch.nn.Module, *inputs: Any) -> Iterator[None]:
        watched = [*_tensors(list(inputs)), *module.state_dict().values()]
        before, members = [tensor.clone() for tensor in watched], _members(module)
        yield
        for tensor, copied in zip(watched, before, strict=True):
            torch.testing.assert_close(tensor, copied, rtol=0, atol=0)
        after = _members(module)
        for old, new in zip(members, after, strict=True):
            assert old.keys() == new.keys()
            assert all(new[name] is old[name] or new[name] == old[name] for name in old)

    return watch


@pytest.fixture
def batch_of() -> Callable[[SimpleNamespace], tuple[Tensor, Tensor, Tensor]]:
    r"""Every training interaction of a planted graph, each with one negative item."""

    def make(graph: SimpleNamespace) -> tuple[Tensor, Tensor, Tensor]:
        user, item = graph.edge_index_dict["user", "rates", "item"]
        sampler = NegativeSampler(torch.stack([user, item]), graph.num_users, graph.num_items)
        return user, item, sampler(user, torch.Generator().manual_seed(0))

    return make
