r"""Ids of every make: all answers are those of the same recommender with row numbers for ids."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gtc_pyg.datasets import from_frames
from gtc_pyg.lightning import fit
from gtc_pyg.models import GTC, ContentFilter, LightGCN
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph

USERS, ITEMS, NEW = 6, 9, 2  # new: of each, after training
RNG = np.random.default_rng(0)
SEEN = np.argwhere(RNG.random((USERS, ITEMS)) < 0.55)
CONTENT = RNG.standard_normal((ITEMS + NEW, 3)).astype(np.float32)
BASES = (0, 2**53 - 3, 2**62, 2**63 - 5, 2**64 - 40, -(2**53), -(2**63))
OFFSETS = st.lists(st.integers(0, 39), min_size=16, max_size=16, unique=True)
WORD = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=3)
WORDS = st.lists(WORD.filter(lambda x: x == x.strip()), min_size=16, max_size=16, unique=True)
NUMBERS = st.builds(lambda base, more: [base + x for x in more], st.sampled_from(BASES), OFFSETS)


def holders(ids: list[Any]) -> list[Any]:
    r"""What may hold the ids exactly."""
    words = isinstance(ids[0], str)
    unsigned = not words and max(ids) >= 2**63
    kind = "string" if words else "UInt64" if unsigned else "Int64"
    arrow = pa.array(ids, getattr(pa, kind.lower())())
    out = [ids, pd.Series(ids, dtype=object), pd.Index(ids), arrow, np.array(ids, object)]
    out += [pd.Series(pd.Categorical(ids)), arrow.to_pandas(types_mapper=pd.ArrowDtype)]
    out += [arrow.to_pandas(types_mapper={arrow.type: pd.api.types.pandas_dtype(kind)}.get)]
    if words:
        return out
    out += [np.array(ids, kind.lower())] + ([] if unsigned else [torch.tensor(ids)])
    return [*out, pd.Series(ids, dtype=float)] if max(map(abs, ids)) < 2**53 else out


class Ids:
    r"""Ids by row, those of training sorted, given in another holder each time."""

    def __init__(self, ids: list[Any], trained: int, choose: Any) -> None:
        self.ids = [*sorted(ids[:trained]), *ids[trained : trained + NEW]]
        self.row = {x: row for row, x in enumerate(self.ids)}
        self._choose = choose

    def hold(self, rows: Any) -> Any:
        ids = [self.ids[row] for row in rows]
        return self._choose(holders(ids)) if ids else ids

    def column(self, rows: Any) -> pd.Series:
        held = self.hold(rows)
        plain = held.tolist() if isinstance(held, pa.Array | torch.Tensor) else held
        return plain if isinstance(plain, pd.Series) else pd.Series(plain)

    def index(self, rows: Any) -> pd.Index:
        return pd.Index(self.column(rows))


def as_rows(table: pd.DataFrame, users: Ids, items: Ids) -> pd.DataFrame:
    r"""The same answer with rows for ids; a KeyError where an id is none that was given."""
    of = {"user": users.row, "item": items.row}
    return table.assign(
        **{name: [of[name][x] for x in table[name].tolist()] for name in of if name in table}
    )


def trained(users: Ids, items: Ids) -> Recommender:
    table = pd.DataFrame({"user": users.column(SEEN[:, 0]), "item": items.column(SEEN[:, 1])})
    table["part"] = "train"
    table.loc[[2, 20], "part"], table.loc[[8, 14], "part"] = "val", "test"
    content = pd.DataFrame(CONTENT[:ITEMS], items.index(range(ITEMS)))
    data = from_frames(
        table, features={"text": content}, split_column="part", pre_transform=ItemKNNGraph(k=3)
    )
    torch.manual_seed(0)
    return Recommender(GTC(USERS, ITEMS, {"text": 3}, ContentFilter({"text": 3}, 4)), data)


def answers(users: Ids, items: Ids, place: Path) -> list[pd.DataFrame]:
    r"""What every method says, with rows for ids."""
    recommender = trained(users, items)
    out = []

    def ask() -> None:
        u, i = users.hold, items.hold
        out.append(recommender.recommend(k=3))
        out.append(recommender.recommend(u([4, 1]), 3, candidates=i([5, 2, 0]), exclude=i([2])))
        pairs = pd.DataFrame({"user": users.column([1, 3]), "item": items.column([4, 7])})
        for exclude in (pairs, {users.ids[1]: i([4]), users.ids[3]: items.ids[7]}):
            out.append(recommender.recommend(u([3]), 4, False, exclude=exclude))
        out.append(recommender.describe(i([8, 3])))
        out.append(recommender.history(u([2])))
        out.append(recommender.similar_items(i([2]), 4))
        out.append(recommender.quality(3, u([0, 2])).to_frame())
        out.append(recommender.fold_in(i([3, 6]), 4, candidates=i([1, 2, 4]), exclude=i([4])))
        out.append(recommender.fold_in({users.ids[-1]: i([3, 6])}, 4))
        out.append(recommender.fold_in(pairs, 4))
        why = recommender.explain(u([3]), i([1]))
        assert items.row[why.item] == 1
        ends = [items.row[x] for x in why.directions[["high", "low"]].to_numpy().sum()]
        out.extend([why.past_items, why.similar_items, pd.DataFrame({"ends": ends})])
        out.append(recommender.explain(interactions=i([3, 6]), item=i([1])).past_items)
        file = recommender.write(place / "lists.parquet", u([5, 0]), 3, progress=False)
        out.append(pd.read_parquet(file))

    ask()
    late = users.column([USERS, USERS, USERS + 1])
    recommender.add_users(pd.DataFrame({"user": late, "item": items.column([0, 5, 8])}))
    x = pd.DataFrame(CONTENT[ITEMS:][::-1], items.index([ITEMS + 1, ITEMS]))
    recommender.add_items(items.hold([ITEMS, ITEMS + 1]), {"text": x})
    ask()
    recommender = Recommender.load(recommender.save(place / "m"))
    ask()
    out.append(recommender.history(users.hold([USERS])))
    out.append(recommender.recommend(users.hold([USERS + 1]), 3, candidates=items.hold([9, 10])))
    return [as_rows(table, users, items) for table in out]


@cache
def expected() -> list[pd.DataFrame]:
    rows = list(range(ITEMS + NEW))
    with TemporaryDirectory() as place:
        numbered = Ids(rows, USERS, lambda every: every[0]), Ids(rows, ITEMS, lambda e: e[0])
        return answers(*numbered, Path(place))


@given(st.one_of(NUMBERS, WORDS), st.one_of(NUMBERS, WORDS), st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None)
def test_every_id_comes_back_as_it_went_in(user_ids, item_ids, random) -> None:
    users, items = (Ids(*x, random.choice) for x in ((user_ids, USERS), (item_ids, ITEMS)))
    with TemporaryDirectory() as place:
        found = answers(users, items, Path(place))
    for table, wanted in zip(found, expected(), strict=True):
        assert_frame_equal(table, wanted, check_dtype=False, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("base", [2**62, 2**63 - 5, -(2**63)])
@pytest.mark.parametrize("held", [0, 1])
def test_an_update_keeps_ids_exact(base: int, held: int, tmp_path: Path) -> None:
    ids = [base + x for x in range(11)]
    users, items = (Ids(ids, size, lambda every: every[-held]) for size in (USERS, ITEMS))
    recommender = trained(users, items)
    new = {users.ids[USERS]: items.hold([0, 1, 2]), users.ids[USERS + 1]: items.hold([3, 4])}
    if held:
        pairs = [(user, x) for user, some in new.items() for x in np.asarray(some).tolist()]
        new = pd.DataFrame({"user": [p[0] for p in pairs], "item": [p[1] for p in pairs]})
    updated = recommender.update(new, epochs=1, progress=False, out=tmp_path)
    assert sorted(updated.users.index.tolist()) == users.ids[: USERS + NEW]
    assert sorted(updated.items.index.tolist()) == items.ids[:ITEMS]
    for user in range(USERS):
        known = recommender.history(users.ids[user])["item"]
        assert set(updated.history(users.ids[user])["item"]) == set(known)
    assert updated.history(users.ids[USERS])["item"].tolist() == items.ids[:3]


@pytest.mark.parametrize("dtype", ["float64", "Float64", "double[pyarrow]", object])
def test_floats_beyond_2_53_are_refused_wherever_ids_are_given(dtype: Any) -> None:
    ids = [2**60 + x for x in range(11)]
    users, items = (Ids(ids, size, lambda every: every[0]) for size in (USERS, ITEMS))
    recommender = trained(users, items)
    joined = pd.Series([float(x) for x in ids[:2]], dtype=dtype)
    pairs = pd.DataFrame({"user": ids[:2], "item": joined})
    x = pd.DataFrame(CONTENT[:2], joined)
    for call in (
        lambda: recommender.recommend(joined),
        lambda: recommender.recommend(joined[0]),
        lambda: recommender.recommend(candidates=joined),
        lambda: recommender.recommend(exclude=joined),
        lambda: recommender.recommend(exclude=pairs),
        lambda: recommender.recommend(exclude={ids[0]: joined}),
        lambda: recommender.history(joined[:1]),
        lambda: recommender.describe(joined),
        lambda: recommender.similar_items(joined[:1]),
        lambda: recommender.quality(users=joined),
        lambda: recommender.explain(joined[:1], ids[0]),
        lambda: recommender.explain(ids[0], joined[:1]),
        lambda: recommender.explain(interactions=joined, item=ids[0]),
        lambda: recommender.fold_in(joined),
        lambda: recommender.fold_in({1: joined}),
        lambda: recommender.fold_in(pairs),
        lambda: recommender.fold_in(ids[:2], candidates=joined),
        lambda: recommender.add_users(pairs),
        lambda: recommender.add_users({float(ids[0]): ids[:2]}),
        lambda: recommender.add_items(joined, {"text": CONTENT[:2]}),
        lambda: recommender.add_items(ids[-2:], {"text": x}),
        lambda: recommender.update(pairs),
        lambda: from_frames(pairs),
        lambda: from_frames(pairs.assign(item=ids[:2]), features={"text": x}),
        lambda: from_frames(pairs.assign(item=ids[:2]), pd.DataFrame({"item": joined})),
    ):
        with pytest.raises(ValueError, match=r"is a float beyond 2\*\*53.* with dtype=str"):
            call()


def test_a_model_that_reads_no_content_needs_none(tmp_path: Path) -> None:
    table = pd.DataFrame(SEEN, columns=["user", "item"])
    dataset = from_frames(table)
    assert dataset.modalities == () and dataset.features == {}
    assert (dataset.num_users, dataset.num_items) == (USERS, ITEMS)
    with_content = from_frames(table, features={"text": pd.DataFrame(CONTENT[:ITEMS])})
    torch.manual_seed(0)
    model = LightGCN(USERS, ITEMS)
    lists = Recommender(model, with_content).recommend(k=3)
    assert_frame_equal(Recommender(model, dataset).recommend(k=3), lists)
    result = fit(model, dataset, epochs=1, progress=False, out=tmp_path / "runs")
    saved = Recommender(result.model, dataset).save(tmp_path / "m")
    recommender = Recommender.load(saved)
    assert_frame_equal(
        recommender.recommend(k=3), Recommender(result.model, dataset).recommend(k=3)
    )
    assert len(recommender.fold_in([1, 2], k=3)) == 3
    with pytest.raises(ValueError, match="LightGCN reads no content"):
        recommender.add_items([50], {})
    more = {50: [0, 1, 2], 51: [3, 4]}
    updated = recommender.update(more, epochs=1, progress=False, out=tmp_path / "more")
    assert updated.history(50)["item"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["user", "item"])
def test_an_update_of_other_peoples_ids_is_refused(kind: str, tmp_path: Path) -> None:
    table = pd.DataFrame(SEEN, columns=["user", "item"]).astype(str)
    recommender = Recommender(LightGCN(USERS, ITEMS), from_frames(table))
    other = from_frames(table.assign(**{kind: "0" + table[kind]}))
    with pytest.raises(ValueError, match=rf"{kind}s have no id in common.* by leading zeros"):
        recommender.update(other, epochs=1, progress=False, out=tmp_path)


def test_tables_that_speak_arrow_are_taken_by_every_method() -> None:
    ids = [2**62 + x for x in range(11)]
    users, items = (Ids(ids, size, lambda every: every[0]) for size in (USERS, ITEMS))
    recommender, table = trained(users, items), pd.DataFrame({"user": ids[:3], "item": ids[2:5]})
    arrow = pa.Table.from_pandas(table)
    for given_ in (arrow, table.set_index("user"), table.set_index(["user", "item"])):
        assert_frame_equal(recommender.fold_in(given_, 3), recommender.fold_in(table, 3))
    found = recommender.recommend(k=4, exclude=arrow)
    assert_frame_equal(found, recommender.recommend(k=4, exclude=table))
    new = pd.DataFrame({"item": ids[-2:], "a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]})
    recommender.add_items(pa.array(ids[-2:]), {"text": pa.Table.from_pandas(new[::-1])})
    assert recommender.features["text"][-2:].tolist() == new[["a", "b", "c"]].to_numpy().tolist()
    recommender.add_users(pa.table({"user": [5, 5], "item": ids[:2]}))
    assert recommender.history(5)["item"].tolist() == ids[:2]
    log = pa.table({"user": [1, 1, 2, 2, 2], "item": ["a", "b", "a", "b", "c"]})
    texts = pa.table({"item": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    split = log.append_column("part", pa.array(["train", "val", "train", "train", "test"]))
    data = from_frames(
        split, pa.table({"item": ["c", "b", "a"]}), {"t": texts}, split_column="part"
    )
    assert data.features["t"].view(-1).tolist() == [3.0, 2.0, 1.0]
