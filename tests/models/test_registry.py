from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Module

from gtc_pyg.models import FREEDOM, GTC, MGCN, LightGCN, SpectralFilter
from gtc_pyg.models.registry import MODELS, OF_THE_DATA, PARTS, build_model, settings_of
from gtc_pyg.nn import BPR, PairwiseInfoNCE, SimilarityGate
from tests.models.graphs import arguments

WIDTHS = {"image": 5, "text": 3}
SIZES = {"num_users": 6, "num_items": 4, "in_channels": WIDTHS}

unit, weight, small = st.floats(0, 1), st.floats(0, 9), st.integers(1, 9)
scale = st.floats(0.1, 9)


def class_and(name: str, **arguments: st.SearchStrategy) -> st.SearchStrategy:
    r"""Settings of a class, some of whose arguments differ from the defaults."""
    return st.fixed_dictionaries({"class": st.just(name)}, optional=arguments)


RANKING = class_and("BPR", scale=scale) | class_and(
    "SampledSoftmax", scale=scale, num_negatives=st.integers(2, 99)
)
SPECTRAL = class_and(
    "SpectralHead",
    channels=small,
    strength=scale,
    debiasing=unit,
    regularization=scale,
    num_item_layers=st.none() | st.integers(0, 3),
)
HEADS = st.tuples(
    st.lists(SPECTRAL, max_size=2), st.lists(st.just({"class": "ItemBias"}), max_size=1)
).map(lambda both: both[0] + both[1])
CONTRAST = {
    "negatives": st.sampled_from(["n", "n_squared"]),
    "chunk_size": small,
    "product_scale": st.sampled_from(["none", "sqrt_dim"]),
    "init_logit_scale": st.floats(-1, 2),
    "max_logit_scale": st.floats(3, 4),
    "gather_distributed": st.booleans(),
}
FILTER = class_and(
    "ContentFilter",
    channels=st.integers(2, 9),
    hidden_channels=st.none() | small,
    condition=st.sampled_from(["item", "neighbors", "user"]),
    num_steps=st.integers(100, 120),
    start_step=st.integers(4, 9),
    num_sampling_steps=st.integers(0, 4),
    incomplete=st.sampled_from([[], ["text"], ["image", "text"]]),
    user_ids=st.booleans(),
    strength=weight,
    loss_batch_size=small,
)
GATE = class_and("SimilarityGate", normalized=st.booleans()) | class_and("UniformGate")
ALIGNMENT = st.none() | class_and("TotalCorrelationLoss", **CONTRAST)
ALIGNMENT |= class_and("PairwiseInfoNCE", **CONTRAST)
COMMON = {"ranking": RANKING, "heads": HEADS, "num_layers": st.integers(0, 3)}
SETTINGS = {
    "LightGCN": {**COMMON, "hidden_channels": small, "regularization": weight},
    "FREEDOM": {**COMMON, "hidden_channels": small, "num_item_layers": small},
    "MGCN": {**COMMON, "hidden_channels": small, "temperature": scale, "contrast_weight": unit},
    "GTC": {
        **COMMON,
        "content_filter": FILTER,
        "fusion": GATE,
        "alignment": ALIGNMENT,
        "num_item_layers": small,
        "edge_dropout": st.floats(0, 0.9),
        "loss_weights": st.dictionaries(st.sampled_from(list(GTC.LOSS_WEIGHTS)), weight),
    },
    "SpectralFilter": {
        "channels": small,
        "debiasing": unit,
        "regularization": scale,
        "num_item_layers": st.integers(0, 2),
    },
}


def found_again(given: Any, found: Any) -> bool:
    r"""Whether all that was given is found again."""
    if isinstance(given, dict):
        return all(found_again(value, found[key]) for key, value in given.items())
    if isinstance(given, list):
        return len(given) == len(found) and all(map(found_again, given, found))
    return given == found


def test_every_model_has_a_strategy_and_every_part_is_met() -> None:
    assert {cls.__name__ for cls in MODELS.values()} == SETTINGS.keys()
    assert set(OF_THE_DATA) == {*SIZES, "incomplete"}
    assert PARTS.keys() == {"content_filter", "fusion", "alignment", "ranking", "heads"}


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_model_of_its_settings_has_these_settings(name: str, data: st.DataObject) -> None:
    given_settings = data.draw(class_and(name, **SETTINGS[name]))
    model = build_model(given_settings, **SIZES)
    found = settings_of(model)
    assert found_again(given_settings, found), found
    plain = json.loads(json.dumps(found))
    assert plain == found
    again = build_model(plain)  # whole: sizes and widths, too
    assert type(again) is type(model) and settings_of(again) == found
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


@pytest.mark.parametrize("name", MODELS)
def test_no_settings_make_the_bare_model(name: str) -> None:
    cls = MODELS[name]
    sizes = {k: v for k, v in SIZES.items() if k != "in_channels" or cls is not LightGCN}
    built = build_model({"class": cls.__name__}, **SIZES)
    assert settings_of(built) == settings_of(cls(**sizes))


def test_a_rebuilt_model_takes_the_weights(planted: Callable) -> None:
    graph = planted()
    for cls in (LightGCN, FREEDOM, MGCN, GTC, SpectralFilter):
        content = [] if cls is LightGCN else [graph.in_channels]
        model = cls(graph.num_users, graph.num_items, *content)
        model.prepare(*arguments(graph)[1:])
        again = build_model(settings_of(model))
        again.load_state_dict(model.state_dict())
        with torch.no_grad():
            outs = model(*arguments(graph)), again(*arguments(graph))
        assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


def test_the_first_class_of_a_part_is_meant_where_none_is_named() -> None:
    model = build_model({"class": "GTC", "alignment": {"class": "PairwiseInfoNCE"}}, **SIZES)
    assert type(model.alignment) is PairwiseInfoNCE
    model = build_model({"class": "GTC", "fusion": {"normalized": False}}, **SIZES)
    assert type(model.fusion) is SimilarityGate


@pytest.mark.parametrize(
    "settings",
    [{}, {"class": "LightGCN", "ranking": {"scale": 2}}, {"class": "GTC", "heads": [{}]}],
    ids=str,
)
def test_models_ranking_losses_and_heads_need_their_class(settings: dict) -> None:
    with pytest.raises(ValueError, match="needs its class, one of"):
        build_model(settings, **SIZES)


def test_settings_of_a_class_of_ones_own_are_refused() -> None:
    class Mine(SimilarityGate):
        pass

    model = GTC(5, 4, {"text": 3}, fusion=Mine())
    with pytest.raises(ValueError, match=r"Mine is no model or part of gtc_pyg"):
        settings_of(model)


@pytest.mark.parametrize("settings", [{}, {"content_filter": {"channels": 8}}], ids=str)
def test_what_data_lacks_reaches_the_content_filter(settings: dict) -> None:
    model = build_model({"class": "GTC", **settings}, **SIZES, incomplete=["text"])
    assert model.content_filter.incomplete == ("text",)
    assert model.content_filter.in_channels == WIDTHS
    assert model.content_filter.encoders["text"].missing is not None
    whole = build_model({"class": "GTC", **settings}, **SIZES)
    assert whole.content_filter.incomplete == ()


def test_settings_go_before_what_the_data_says() -> None:
    settings = {"class": "GTC", "content_filter": {"incomplete": ["image"]}}
    model = build_model(settings, **SIZES, incomplete=["text"])
    assert model.content_filter.incomplete == ("image",)
    assert build_model({"class": "LightGCN", "num_users": 3}, **SIZES).num_users == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class": "BPRMF"}, r"'model' must be of the class LightGCN or .* \(got 'BPRMF'\)"),
        ({"class": ["GTC"]}, r"'model' must be of the class .* \(got \['GTC'\]\)"),
        ({"class": "GTC", "score_scale": 1}, r"GTC has no 'score_scale' \(it has num_users, .*"),
        ({"ranking": {"class": "Hinge"}}, r"'ranking' must be of the class .* \(got 'Hinge'\)"),
        ({"ranking": {"class": "BPR", "k": 1}}, r"BPR has no 'k' \(it has scale\)"),
        ({"heads": [{"class": "ItemBias", "x": 0}]}, r"ItemBias has no 'x' \(it has nothing\)"),
        ({"class": "GTC", "fusion": {"class": "BPR"}}, "'fusion' must be of the class Similarity"),
    ],
    ids=str,
)
def test_unknown_classes_and_arguments_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model({"class": "LightGCN", **settings}, **SIZES)


def test_numbers_of_numpy_become_plain() -> None:
    np = pytest.importorskip("numpy")
    model = LightGCN(6, 4, np.int64(8), regularization=np.float64(0.5))
    found = settings_of(model)
    assert type(found["hidden_channels"]) is int and type(found["regularization"]) is float


def test_a_part_has_settings_of_its_own() -> None:
    assert settings_of(BPR(2)) == {"class": "BPR", "scale": 2.0}
    assert isinstance(GTC(**SIZES).fusion, Module)
