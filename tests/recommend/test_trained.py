import copy

import torch


def test_what_is_derived_is_made_once_and_anew_in_a_copy(recommender) -> None:
    assert recommender.user_embedder is recommender.user_embedder
    assert recommender.item_embedder is recommender.item_embedder
    assert recommender.explainer is recommender.explainer
    other = copy.deepcopy(recommender)
    assert other.user_embedder is not recommender.user_embedder


def test_cold_rows_are_items_without_interactions(recommender) -> None:
    touched = set(recommender.inputs.edge_index_dict["user", "rates", "item"][1].tolist())
    assert recommender.cold_rows == set(range(recommender.num_items)) - touched


def test_seen_rows_are_those_of_the_history(recommender) -> None:
    user = recommender.users[torch.tensor([3])].tolist()[0]
    rows = recommender.seen_rows(3).sort().values
    assert recommender.history(user)["item"].tolist() == recommender.items[rows].tolist()
