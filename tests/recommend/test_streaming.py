from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from gtc_pyg.recommend import recommender as module
from gtc_pyg.recommend import streaming
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.lists import Lists

read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("users_at_once", [1, 7, 60, 1000])
def test_parts_make_one_table(recommender, tmp_path, suffix, users_at_once):
    path = tmp_path / f"deep/lists{suffix}"
    options = {"k": 3, "users_at_once": users_at_once, "progress": False}
    assert recommender.write(path, **options) == path
    assert_frame_equal(read[suffix](path), recommender.recommend(k=3))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def interrupted(recommender, path, monkeypatch, after, **options):
    """Stops after some parts; counts those that are made."""
    made, whole = [], module.Recommender._rank

    def rank(self, rows, *args):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(rows.tolist())
        return whole(self, rows, *args)

    monkeypatch.setattr(module.Recommender, "_rank", rank)
    options = {"users_at_once": 10, "progress": False} | options
    try:
        recommender.write(path, **options)
    except KeyboardInterrupt:
        assert not path.exists()
    monkeypatch.setattr(module.Recommender, "_rank", whole)
    return made


def test_an_interrupted_call_goes_on_with_the_rest(recommender, tmp_path, monkeypatch):
    path = tmp_path / "l.parquet"
    assert len(interrupted(recommender, path, monkeypatch, 4, k=3)) == 4
    made = interrupted(recommender, path, monkeypatch, 99, k=3)
    assert [rows[0] for rows in made] == [40, 50]
    assert_frame_equal(pd.read_parquet(path), recommender.recommend(k=3))
    assert [p.name for p in tmp_path.iterdir()] == ["l.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"k": 4},
        lambda r: {"exclude_seen": False},
        lambda r: {"exclude": [1000]},
        lambda r: {"candidates": [1000]},
        lambda r: {"exclude": {"u01": [1000]}},
        lambda r: {"users": ["u01"]},
        lambda r: {"users_at_once": 11},
        lambda r: r.item_emb.mul_(2) is None or {},
        lambda r: r.add_users({"new": [1000]}) or {},
    ],
)
def test_parts_of_another_request_are_not_taken(recommender, tmp_path, monkeypatch, change):
    path = tmp_path / "l.csv"
    interrupted(recommender, path, monkeypatch, 4, k=3)
    options = {"k": 3} | change(recommender)
    made = interrupted(recommender, path, monkeypatch, 99, **options)
    assert made[0][0] in (0, 1)
    assert len(list(tmp_path.glob("l.csv.*.parts"))) == 1  # what the first one left
    options.pop("users_at_once", None)
    assert_frame_equal(pd.read_csv(path), recommender.recommend(**options))


def test_another_ending_is_refused(recommender, tmp_path):
    with pytest.raises(ValueError, match=r"'path' must end in .parquet or .csv \(got .*xlsx"):
        recommender.write(tmp_path / "l.xlsx", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_ids_of_another_type_are_another_request(recommender, tmp_path, monkeypatch):
    path = tmp_path / "l.csv"
    interrupted(recommender, path, monkeypatch, 4, k=3)
    recommender.items = Ids(recommender.items.index.map("{:05d}".format), "item")
    interrupted(recommender, path, monkeypatch, 99, k=3)
    assert pd.read_csv(path, dtype=str)["item"].str.len().eq(5).all()


def test_two_requests_at_a_time_do_not_mix(recommender, tmp_path, monkeypatch):
    path, whole, begun = tmp_path / "l.csv", module.Recommender._rank, []

    def rank(self, rows, *args):
        if len(begun) == 2:
            begun.append("the other one comes between")
            recommender.write(path, k=5, users_at_once=10, progress=False)
        begun.append(rows)
        return whole(self, rows, *args)

    monkeypatch.setattr(module.Recommender, "_rank", rank)
    recommender.write(path, k=3, users_at_once=10, progress=False)
    monkeypatch.setattr(module.Recommender, "_rank", whole)
    assert_frame_equal(pd.read_csv(path), recommender.recommend(k=3))


def test_a_second_process_with_the_same_request_is_refused(recommender, tmp_path, monkeypatch):
    path, whole, begun, refused = tmp_path / "l.csv", module.Recommender._rank, [], []
    options = {"k": 3, "users_at_once": 10, "progress": False}

    def rank(self, rows, *args):
        begun.append(rows)
        if len(begun) == 1:
            with ThreadPoolExecutor(1) as pool:
                refused.append(pool.submit(recommender.write, path, **options).exception())
        return whole(self, rows, *args)

    monkeypatch.setattr(module.Recommender, "_rank", rank)
    recommender.write(path, **options)
    said = f"another process writes these lists to {path} now: wait for its end"
    assert [repr(error) for error in refused] == [f"RuntimeError({said!r})"]
    assert_frame_equal(pd.read_csv(path), recommender.recommend(k=3))
    assert list(tmp_path.iterdir()) == [path]


def test_kill_while_parts_are_joined_leaves_no_other_file(recommender, tmp_path, monkeypatch):
    path = tmp_path / "l.csv"

    def killed(source, target):
        target.write(source.read(10))
        monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)  # nor cleaned up
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming.shutil, "copyfileobj", killed)
    with pytest.raises(KeyboardInterrupt):
        recommender.write(path, k=3, users_at_once=10, progress=False)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".parts" and list(left.glob(".joined.csv.part"))
    monkeypatch.undo()
    recommender.write(path, k=3, users_at_once=10, progress=False)
    assert_frame_equal(pd.read_csv(path), recommender.recommend(k=3))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [object, "str", "string", "Int64", "uint8"])
@pytest.mark.parametrize("empty", ["first", "last", "all"])
def test_parts_without_lists_fit_those_with_some(dtype, empty, tmp_path):
    names = ["1", "2"] if dtype in (object, "str", "string") else [1, 2]
    users, items = (Ids(pd.Index(names, dtype=dtype), kind) for kind in ("user", "item"))
    rows = {"first": [0, 0], "last": [1, 1], "all": [0, 0, 1, 1]}[empty]
    seen = torch.tensor([rows, [0, 1] * (len(rows) // 2)])
    lists = Lists(torch.eye(2), torch.eye(2), users, items, None, seen, False)
    path = lists.write(tmp_path / "l.parquet", users_at_once=1, progress=False)
    found, expected = pd.read_parquet(path), lists.recommend()
    assert found.to_dict("list") == expected.to_dict("list")
