"""Settings are numbers, whether Python's, NumPy's or PyTorch's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import PlantedPreferences, from_frames
from gtc_pyg.datasets.splits import random_split
from gtc_pyg.evaluation import Ranker, evaluate, ranking_metrics
from gtc_pyg.functional import inner_product_topk
from gtc_pyg.loader import InteractionLoader
from gtc_pyg.nn import NoiseSchedule, TotalCorrelationLoss
from gtc_pyg.recommend import ItemIndex
from gtc_pyg.transforms import (
    ItemKNNGraph,
    SpectralFeatures,
    k_core,
    spectral_embedding,
    tfidf_embedding,
)
from tests.datasets.frames import log, triples

EDGES = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 2]])
RING = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
EMB = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
FORMS = [np.float64, np.float32, np.array, lambda x: torch.tensor(x, dtype=torch.double)]
WHOLE = [np.int64, np.uint8, np.array, torch.tensor]

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "ItemKNNGraph": (
        lambda **kwargs: vars(ItemKNNGraph(**kwargs)),
        {"k": 3, "weights": {"image": 2.0}},
    ),
    "SpectralFeatures": (
        lambda **kwargs: vars(SpectralFeatures("a", **kwargs)),
        {"dim": 3, "seed": 1},
    ),
    "spectral_embedding": (
        lambda **kwargs: spectral_embedding(RING, None, **kwargs).tolist(),
        {"num_nodes": 6, "dim": 2, "seed": 3},
    ),
    "k_core": (
        lambda **kwargs: k_core(EDGES, **kwargs).tolist(),
        {"num_users": 3, "num_items": 3, "k": 2},
    ),
    "tfidf_embedding": (
        lambda **kwargs: tfidf_embedding(["a b", "b c", "c a"], **kwargs).tolist(),
        {"dim": 2, "min_count": 1, "seed": 1},
    ),
    "InteractionLoader": (
        lambda **kwargs: [torch.stack(b).tolist() for b in InteractionLoader(EDGES, **kwargs)],
        {"num_users": 3, "num_items": 4, "batch_size": 4, "seed": 5},
    ),
    "evaluate": (
        lambda **kwargs: evaluate(EMB, EMB, EDGES, [], **kwargs),
        {"ks": [1, 3], "batch_size": 2, "score_bytes": 200},
    ),
    "Ranker": (lambda **kwargs: Ranker(EDGES, [], **kwargs).users.tolist(), {"num_users": 3}),
    "ranking_metrics": (lambda **kwargs: list(ranking_metrics(**kwargs)), {"ks": [2, 5]}),
    "inner_product_topk": (
        lambda **kwargs: inner_product_topk(EMB, EMB, **kwargs)[1].tolist(),
        {"k": 3},
    ),
    "ItemIndex": (
        lambda k, **kwargs: ItemIndex(EMB, **kwargs).search(EMB, k)[1].tolist(),
        {"k": 3, "num_candidates": 100},
    ),
    "PlantedPreferences": (
        lambda **kwargs: PlantedPreferences(modalities=["image"], **kwargs)[0]["item"].x_image,
        {"num_users": 30, "num_items": 20, "mean_degree": 6.0, "seed": 2, "noise": 0.5},
    ),
    "from_frames": (
        lambda **kwargs: triples(
            from_frames(log(), features=CONTENT, rating="stars", weight="plays", **kwargs)
        ),
        {"min_rating": 2.0, "min_weight": 2.0, "ratios": (0.5, 0.25, 0.25), "seed": 3, "k_core": 2},
    ),
}
CALLS |= {
    "NoiseSchedule": (
        lambda **kwargs: NoiseSchedule(**kwargs).alpha_bar.tolist(),
        {"num_steps": 20, "beta_start": 0.25, "beta_end": 0.5},
    ),
    "TotalCorrelationLoss": (
        lambda **kwargs: repr(TotalCorrelationLoss(**kwargs).state_dict()),
        {"chunk_size": 8, "init_logit_scale": 0.5, "max_logit_scale": 2.0},
    ),
    "random_split": (
        lambda **kwargs: random_split(np.arange(60) % 4, **kwargs).tolist(),
        {"ratios": (0.5, 0.25, 0.25), "seed": 3},
    ),
}
CONTENT = {"text": pd.DataFrame(np.eye(30), index=[f"i{item}" for item in range(30)])}


def given(value: Any, whole: Callable, real: Callable) -> Any:
    if isinstance(value, dict):
        return {key: given(entry, whole, real) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(given(entry, whole, real) for entry in value)
    return whole(value) if isinstance(value, int) else real(value)


@pytest.mark.parametrize(("whole", "real"), list(zip(WHOLE, FORMS, strict=True)))
@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_plain_numbers(name: str, whole: Callable, real: Callable) -> None:
    if name == "ItemIndex":
        pytest.importorskip("faiss")
    call, plain = CALLS[name]
    expected, found = call(**plain), call(**given(plain, whole, real))
    if isinstance(expected, torch.Tensor):
        expected, found = expected.tolist(), found.tolist()
    assert found == expected


def test_a_transform_with_numpy_numbers_names_the_same_cache() -> None:
    plain, scalar = ItemKNNGraph(k=3), ItemKNNGraph(k=np.int64(3))
    assert repr(vars(plain)) == repr(vars(scalar))
