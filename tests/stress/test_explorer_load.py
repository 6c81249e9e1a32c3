"""The load test of the explorer tells a right answer from a wrong one."""

import random

import pytest
import torch

from benchmarks.harness import between, read_rows
from gtc_pyg.models import GTC, ItemBias
from gtc_pyg.recommend import Recommender
from tests.stress import explorer_load as bench


@pytest.fixture(scope="module")
def recommender(planted_dataset):
    torch.manual_seed(0)
    dataset = planted_dataset(20, 30, ["image"], k=None, mean_degree=6.0)
    return Recommender(GTC(20, 30, {"image": 32}, num_item_layers=0, heads=[ItemBias()]), dataset)


def test_right_answers_are_told_from_wrong_ones(recommender, tmp_path):
    folder = recommender.save(tmp_path / "saved")
    rows = {row["kind"]: row for row in bench.load(folder, requests=150, clients=8, seed=0)}
    kinds = {"list", "fold-in", "reasons", "similar", "history", "search", "malformed"}
    assert set(rows) == {"all"} | kinds
    assert sum(rows[kind]["requests"] for kind in kinds) == rows["all"]["requests"] == 150
    assert all(rows["all"][name] == 0 for name in ("wrong", "lost", "failed"))
    right = bench.same([(3, 0.5), (1, 0.25)])
    answer = [{"id": 3, "value": 0.5}, {"id": 1, "value": 0.25}]
    assert right(answer)
    assert not right(answer[::-1])
    assert not right(answer[:1])
    assert not right([answer[0], {"id": 1, "value": 0.26}])
    assert not bench.same_ids([1, 2])([{"id": 1}])


def test_who_gets_the_answer_of_another_request_is_told_so(recommender):
    cases, bad = bench.draw_cases(recommender, random.Random(0), each=3)
    assert {case.status for case in bad} == {400, 404, 405, 413, 422}
    lists = [case for case in cases if case.kind == "list"]
    frame = recommender.recommend(0, 20)
    answer = [{"id": i, "value": s} for i, s in zip(frame["item"], frame["score"], strict=True)]
    assert not any(case.right(answer) for case in lists if b'"user": 0' not in case.body)


def test_the_page_has_the_rows():
    rows = read_rows(bench.ROWS)
    assert rows
    page = bench.PAGE.read_text()
    assert between(page, "load", bench.table(rows)) == page
