import pytest
import torch

from gtc_pyg.models import LightGCN
from gtc_pyg.recommend.contents import check_settings, check_weights, header_of

MODEL = LightGCN(5, 4, 3)
HELD = header_of({f"model.{name}": x for name, x in MODEL.state_dict().items()})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2**16 + 1}, "channels is 65537, more than anything"),
        ({"num_layers": 65}, "num_layers is 65, more than 64"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"a": {1, 2}}, "a is of the type set"),
        ({"a": [[[[[[[[[1]]]]]]]]]}, "settings, or 8 in each other"),
    ],
    ids=str,
)
def test_settings_that_cost_more_than_they_hold_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_settings(settings, HELD)
    check_settings({"channels": 2**16, "num_layers": 64}, HELD)


def test_weights_of_another_shape_or_type_are_named() -> None:
    check_weights(MODEL, HELD)
    check_weights(MODEL, header_of({f"model.{k}": x for k, x in doubled().items()}))
    for change, message in (
        ({"model.user_emb.weight": torch.ones(5, 2)}, "user_emb.weight is"),
        ({"model.more": torch.ones(1)}, "no weight of it"),
        ({"model.user_emb.weight": torch.ones(5, 3).double()}, "of several types"),
    ):
        with pytest.raises(ValueError, match=message):
            check_weights(MODEL, {**HELD, **header_of(change)})


def doubled() -> dict[str, torch.Tensor]:
    return LightGCN(5, 4, 3).double().state_dict()
