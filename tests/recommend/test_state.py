import copy
import sys
import threading

import pandas as pd
import pytest
import torch

from gtc_pyg.recommend import Recommender
from tests.recommend.parts import content_of

ROUNDS = 8


@pytest.fixture
def impatient():
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def changes(dataset, number):
    users, content = (
        {f"new{number}": [1000, 997], f"newer{number}": [994]},
        content_of(dataset, [1]),
    )
    return lambda r: r.add_users(users), lambda r: r.add_items([2000 + number], content)


READS = {
    "recommend": lambda r, tmp: r.recommend(k=60, exclude_seen=False),
    "history": lambda r, tmp: r.recommend(["u01", "u02"], k=60),
    "similar_items": lambda r, tmp: r.similar_items(1000, k=60),
    "describe": lambda r, tmp: r.describe(),
    "quality": lambda r, tmp: r.quality(k=3),
    "fold_in": lambda r, tmp: r.fold_in([1000, 991], k=60),
    "write": lambda r, tmp: pd.read_parquet(
        r.write(tmp / f"{threading.get_ident()}.parquet", k=60, users_at_once=16, progress=False)
    ),
    "save": lambda r, tmp: Recommender.load(r.save(tmp / f"m{threading.get_ident()}")).recommend(
        k=60
    ),
}


def text(answer):
    return answer.to_csv(float_format="%.5f")


@pytest.mark.parametrize("name", READS)
def test_readers_see_the_old_or_the_new_state(recommender, dataset, tmp_path, impatient, name):
    read, alone = READS[name], copy.deepcopy(recommender)
    allowed = [text(read(alone, tmp_path))]
    for number in range(ROUNDS):
        for change in changes(dataset, number):
            change(alone)
            allowed.append(text(read(alone, tmp_path)))
    found, errors, ended = [], [], threading.Event()

    def reading():
        try:
            while not ended.is_set():
                found.append(text(read(recommender, tmp_path)))
            found.append(text(read(recommender, tmp_path)))
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=reading) for _ in range(2)]
    for thread in readers:
        thread.start()
    for number in range(ROUNDS):
        for change in changes(dataset, number):
            change(recommender)
    ended.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert set(found) <= set(allowed) and allowed[-1] in found


def test_no_change_of_several_threads_is_lost(recommender, impatient):
    def adding(first):
        for number in range(first, first + ROUNDS):
            recommender.add_users({f"new{number}": [1000]})

    threads = [threading.Thread(target=adding, args=(ROUNDS * i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recommender.num_users == recommender.user_emb.size(0) == 60 + 3 * ROUNDS


def test_a_copy_changes_alone(recommender):
    for other in (copy.deepcopy(recommender), copy.copy(recommender)):
        other.add_users({"new": [1000]})
        assert (other.num_users, recommender.num_users) == (61, 60)


def test_fields_say_when_there_is_nothing_yet():
    with pytest.raises(AttributeError, match="'Recommender' has no 'users' yet"):
        Recommender.__new__(Recommender).users  # noqa: B018
    assert Recommender.users.name == "users"


def test_a_field_can_be_set_alone(recommender):
    recommender.user_emb = torch.ones_like(recommender.user_emb)
    assert bool((recommender.user_emb == 1).all()) and recommender.num_users == 60
