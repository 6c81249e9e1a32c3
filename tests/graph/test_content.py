from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gtc_pyg.graph.content import content_of, content_with_masks, present_rows
from gtc_pyg.models import FREEDOM, GTC, MGCN
from tests.models.graphs import arguments, gtc_of, without_some_images


def content() -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(4, 3),
        "text": torch.randn(4, 2),
        "has_text": torch.tensor([True, False, True, True]),
    }


def test_content_comes_as_it_is_with_its_masks() -> None:
    features = content()
    assert content_of(features, "text", 4) is features["text"]
    out = content_with_masks(features, ["text"], ["text"], 4)
    assert list(out) == ["text", "has_text"]
    assert all(x is features[key] for key, x in out.items())
    whole = features | {"has_image": torch.ones(4, dtype=torch.bool)}
    assert "has_image" in content_with_masks(whole, ["image"], [], 4)


def test_the_rows_that_are_present_are_those_of_the_mask_or_all() -> None:
    assert present_rows(content(), "text").tolist() == [True, False, True, True]
    assert present_rows(content(), "image").tolist() == [True] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, r"lacks 'image' \(it has \['text', 'has_text'\]\)"),
        ({"image": torch.ones(3, 3)}, "has 3 rows of 'image', expected one for each of the 4"),
        ({"has_text": None}, r"lacks 'has_text' \[4\] \(bool\): 'text' is one of 'incomplete'"),
        ({"has_text": torch.ones(4)}, r"'has_text' as bool \[4\] \(got torch.float32 \[4\]\)"),
        ({"has_text": torch.ones(3) > 0}, r"'has_text' as bool \[4\] \(got torch.bool \[3\]\)"),
        (
            {"has_image": torch.arange(4) > 2},
            r"lacks 'image' of 3 items: make the model with incomplete=\['image'\]",
        ),
    ],
)
def test_content_that_does_not_fit_is_named(change: dict, message: str) -> None:
    features = {key: x for key, x in (content() | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        content_with_masks(features, ["image", "text"], ["text"], 4)


def test_a_model_asks_for_it(planted: Callable) -> None:
    graph = planted()
    with pytest.raises(ValueError, match="'features' lacks 'text'"):
        gtc_of(graph)({"image": graph.features["image"]}, *arguments(graph)[1:])
    without_some_images(graph)
    with pytest.raises(ValueError, match=r"lacks 'image' of 15 items: .*incomplete="):
        gtc_of(graph)(*arguments(graph))
    gtc_of(graph, incomplete=["image"])(*arguments(graph))


@pytest.mark.parametrize("model", [GTC, FREEDOM, MGCN])
@pytest.mark.parametrize("given", [[64], 64, None])
def test_widths_that_are_no_mapping_are_named(model: Any, given: Any) -> None:
    with pytest.raises(ValueError, match=r"'in_channels' must map modalities to widths, such as"):
        model(5, 4, given)
