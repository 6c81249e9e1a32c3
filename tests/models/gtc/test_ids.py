import pytest
import torch

from gtc_pyg.models.gtc.ids import IDs


def test_rows_at_unit_length_keep_their_directions() -> None:
    ids = IDs.of(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    assert ids.unit_user.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert ids.unit_item.tolist() == [[0, 1]]


def test_half_the_squared_length_is_shared_by_users() -> None:
    ids = IDs.of(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    pairs = torch.tensor([0, 1]), torch.tensor([0, 0, 1, 1])
    assert ids.mean_square(*pairs).item() == pytest.approx((25 + 1 + 4 + 4 + 2 + 2) / 4)
