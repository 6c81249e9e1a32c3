import pytest
import torch

from gtc_pyg.models import LightGCN
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend.quality import list_quality
from tests.recommend.parts import edges


def test_quality_of_a_case_worked_by_hand(dataset):
    model = LightGCN(60, 40, hidden_channels=1)
    torch.nn.init.ones_(model.user_emb.weight)
    recommender = Recommender(model, dataset)
    recommender.user_emb = torch.ones(60, 1)
    recommender.item_emb = torch.arange(40.0).view(-1, 1)  # everybody's list begins with 39, 38
    table = recommender.recommend(k=2)
    counts = edges(dataset, "train", "val", "test")[1].bincount(minlength=40)
    found = recommender.quality(k=2, category="kind")
    listed = dataset.item_ids.get_indexer(table["item"])
    assert found["AveragePopularity@2"] == pytest.approx(counts[listed].double().mean().item())
    assert found["Coverage@2"] == pytest.approx(len(set(listed)) / 40)
    kinds = torch.tensor(listed % 3).view(-1, 2)
    assert found["Diversity@2"] == pytest.approx(
        (kinds[:, 0] != kinds[:, 1]).double().mean().item()
    )
    assert 0 <= found["Personalization@2"] <= 1
    with pytest.raises(
        ValueError, match=r"'category' must be one of .*'title', 'kind'.*got 'brand'"
    ):
        recommender.quality(category="brand")
    with pytest.raises(ValueError, match=r"'k' must leave .*got 1000"):
        recommender.quality(k=1000)


LISTS = torch.tensor([[0, 1], [0, 2], [1, 0]])
POPULARITY, KIND = torch.tensor([4, 2, 0, 9]), torch.tensor([0, 1, 0, 0])


def test_three_lists_of_four_items_worked_by_hand():
    assert list_quality(LISTS, 2, POPULARITY, KIND) == pytest.approx(
        {
            "AveragePopularity@2": ((4 + 2) + (4 + 0) + (2 + 4)) / 6,
            "Coverage@2": 3 / 4,  # nobody has item 3
            "Personalization@2": 1 - (1 / 2 + 2 / 2 + 1 / 2) / 3,  # shares of two lists in common
            "Diversity@2": 2 / 3,  # the second list has one kind
        }
    )
    assert set(list_quality(LISTS, 2, POPULARITY)) == {
        "AveragePopularity@2",
        "Coverage@2",
        "Personalization@2",
    }


@pytest.mark.parametrize("users", [[2, 0, 1], [1, 2, 0], [0, 2, 1]])
def test_the_order_of_users_and_of_their_lists_changes_nothing(users):
    expected = list_quality(LISTS, 2, POPULARITY, KIND)
    for some in (LISTS[users], LISTS[users].flip(1)):
        assert list_quality(some, 2, POPULARITY, KIND) == pytest.approx(expected)


def test_items_by_other_numbers_are_of_the_same_quality():
    rename = torch.tensor([2, 3, 1, 0])
    renamed = list_quality(rename[LISTS], 2, POPULARITY[rename.argsort()], KIND[rename.argsort()])
    assert renamed == pytest.approx(list_quality(LISTS, 2, POPULARITY, KIND))


def test_a_list_that_ends_early_is_left_out():
    more = torch.cat([LISTS, torch.tensor([[3, -1], [-1, -1]])])
    expected = list_quality(LISTS, 2, POPULARITY, KIND)
    assert list_quality(more, 2, POPULARITY, KIND) == pytest.approx(expected)


@pytest.mark.parametrize("items", [[[3, -1]], [[0, 1, 2]], [[0]]])
def test_where_no_list_is_whole_there_is_no_quality(items):
    with pytest.raises(ValueError, match=r"'k' must leave at least one user .*\(got 2\)"):
        list_quality(torch.tensor(items), 2, POPULARITY)
