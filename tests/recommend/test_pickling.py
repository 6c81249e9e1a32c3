"""A recommender goes to other processes, whatever was asked of it before."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from typing import Any

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal, assert_series_equal

from gtc_pyg.experiment import MODELS, build_model
from gtc_pyg.lightning import fit
from gtc_pyg.models import GraphRecommender
from gtc_pyg.recommend import Recommender

CALLS: dict[str, Callable[[Recommender, Any], object]] = {
    "recommend": lambda r, data: r.recommend(["u01"], k=3),
    "fold_in": lambda r, data: r.fold_in([1000, 997], k=3),
    "similar_items": lambda r, data: r.similar_items(1000),
    "quality": lambda r, data: r.quality(3),
    "add_users": lambda r, data: r.add_users({"new": [1000, 994]}),
    "add_items": lambda r, data: r.add_items([7], first_of(data)),
    "explain": lambda r, data: r.explain("u01", 1000),
    "plot_user": lambda r, data: r.plot_user("u01", k=2),
}
CANNOT = {("lightgcn", "add_items")}
CASES = [(name, call) for name in MODELS for call in CALLS if (name, call) not in CANNOT]
WAYS = {
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),
    "deepcopy": copy.deepcopy,
}


def first_of(dataset: Any) -> dict[str, torch.Tensor]:
    return {name: x[:1] for name, x in dataset.features.items()}


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory) -> dict[str, GraphRecommender]:
    out, models = tmp_path_factory.mktemp("pickling"), {}
    for name in MODELS:
        torch.manual_seed(0)
        model = build_model(name, dataset)
        options = {"epochs": 1, "batch_size": 256, "progress": False, "out": out, "name": name}
        models[name] = fit(model, dataset, **options).model
    return models


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


def check_same(one: Recommender, other: Recommender) -> None:
    """All that can be asked gives the same, what is made on demand too."""
    assert repr(one) == repr(other)
    assert_frame_equal(one.recommend(k=5), other.recommend(k=5))
    assert_frame_equal(one.fold_in([1000, 991], k=5), other.fold_in([1000, 991], k=5))
    assert_frame_equal(one.describe(), other.describe())
    found, expected = (r.explain("u02", 997) for r in (other, one))
    assert_series_equal(found.sources, expected.sources)
    assert_frame_equal(found.past_items, expected.past_items)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "call"), CASES)
def test_a_copy_after_any_call_answers_alike(trained, dataset, name, call, way) -> None:
    recommender = Recommender(trained[name], dataset)
    CALLS[call](recommender, dataset)
    copied = WAYS[way](recommender)
    check_same(recommender, copied)


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_goes_its_own_way(trained, dataset, name) -> None:
    recommender = Recommender(trained[name], dataset)
    before = recommender.recommend(k=5)
    copied = copy.deepcopy(recommender)
    copied.add_users({"new": [1000]})
    with torch.no_grad():
        copied.user_emb.zero_()
        copied.model.user_emb.weight.zero_()
    assert (recommender.num_users, copied.num_users) == (60, 61)
    assert_frame_equal(recommender.recommend(k=5), before)
    assert bool(recommender.user_emb.any())


@pytest.mark.parametrize("name", MODELS)
def test_lists_of_a_spawned_pool_are_the_same(trained, dataset, pool, name) -> None:
    recommender = Recommender(trained[name], dataset)
    for call in CALLS:
        if (name, call) not in CANNOT:
            CALLS[call](recommender, dataset)
    found: pd.DataFrame = pool.apply(recommender.recommend, (["u01", "new"], 5))
    assert_frame_equal(found, recommender.recommend(["u01", "new"], 5))
    assert_frame_equal(pool.apply(recommender.fold_in, ([1000],)), recommender.fold_in([1000]))
