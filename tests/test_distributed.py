"""Shares of the work, and gradients averaged by two gloo processes."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.nn import Embedding, Linear

from gtc_pyg import distributed
from gtc_pyg.distributed import (
    average_gradients,
    gather_rows,
    own_rows,
    own_share,
    rank,
    rank_zero_first,
    world_size,
)
from tests.processes import LIMIT, run_python
from tests.two_processes import in_two_processes


@pytest.fixture
def as_process(monkeypatch):
    def pretend(number: int, total: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", str(total))

    return pretend


@pytest.mark.parametrize("num", [1, 2, 5, 2048])
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_shares_cover_every_row_once_and_differ_by_one(as_process, num, total):
    rows, sizes = [], []
    for number in range(total):
        as_process(number, total)
        rows += range(num)[own_share(num)]
        sizes.append(len(range(num)[own_share(num)]))
    assert rows == list(range(num))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num", [1, 2, 5, 2048])
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_weighted_means_of_shares_average_to_the_mean(as_process, num, total):
    x = torch.randn(num, dtype=torch.double)
    means = []
    for number in range(total):
        as_process(number, total)
        share, weight = own_rows(num)
        assert x[share].numel() > 0
        means.append(weight * x[share].mean())
    assert float(sum(means)) / total == pytest.approx(float(x.mean()))


def test_one_process_has_everything_and_averages_nothing():
    assert (rank(), world_size()) == (0, 1)
    weight = torch.nn.Parameter(torch.ones(2))
    average_gradients([weight])
    assert weight.grad is None
    with rank_zero_first():
        pass


def test_gathered_rows_of_one_process_carry_no_gradient():
    x = torch.ones(2, requires_grad=True)
    assert not gather_rows(x)[0].requires_grad


IDS = [torch.tensor([0, 3, 3]), torch.tensor([3, 1, 4, 0, 2])]  # row 5 is touched by neither
SLANTED = torch.arange(90_000.0).view(300, 300)  # large, and on one process not contiguous


def averaged(number: int) -> dict:
    torch.manual_seed(0)
    table, layer = Embedding(6, 3, sparse=True), Linear(3, 2)
    large, lone = torch.nn.Parameter(torch.ones(300, 300)), torch.nn.Parameter(torch.ones(2))
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    idle, late = torch.nn.Parameter(torch.ones(2)), Embedding(4, 2, sparse=True)
    slanted = torch.nn.Parameter(torch.ones(300, 300))
    slanted.grad = SLANTED.clone() if number == 0 else SLANTED.t().contiguous().t()
    if number == 1:
        late(torch.tensor([2])).sum().backward()
    loss = layer(table(IDS[number])).sum() + (number + 1) * large.sum()
    (loss + (lone.sum() if number == 1 else 0)).backward()
    parameters = [slanted, table.weight, *layer.parameters(), large, lone, late.weight]
    average_gradients([idle, *parameters, frozen])
    grads = [p.grad.to_dense() for p in parameters]
    rows = gather_rows(IDS[number])
    return {
        "grads": grads,
        "none": [idle.grad, frozen.grad],
        "rows": rows,
        "touched": [table.weight.grad._nnz(), late.weight.grad._nnz()],
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_two_processes(averaged, tmp_path_factory.mktemp("two"))


def test_gradients_are_the_means_over_processes_sparse_ones_too(two):
    torch.manual_seed(0)
    table, layer = Embedding(6, 3), Linear(3, 2)
    (sum(layer(table(ids)).sum() for ids in IDS) / 2).backward()
    expected = [SLANTED, table.weight.grad, layer.weight.grad, layer.bias.grad]
    expected += [torch.full((300, 300), 1.5), torch.full((2,), 0.5)]
    expected += [torch.tensor([[0.0, 0], [0, 0], [0.5, 0.5], [0, 0]])]
    for found in two:
        for got, grad in zip(found["grads"], expected, strict=True):
            torch.testing.assert_close(got, grad)
        assert found["touched"] == [5, 1]


def test_a_gradient_that_every_process_lacks_stays_none(two):
    for found in two:
        assert found["none"] == [None, None]


def test_rows_of_different_numbers_are_gathered_in_order(two):
    for found in two:
        assert [rows.tolist() for rows in found["rows"]] == [ids.tolist() for ids in IDS]


WAIT = """
import pathlib, sys
from gtc_pyg.distributed import rank, rank_zero_first
path = pathlib.Path(sys.argv[1])
for name in ("first", "second"):
    with rank_zero_first():
        found = (path / name).exists()
        if sys.argv[2:] == ["fail", name]:
            raise OSError("the disk is full")
        (path / name).touch()
    assert found == (rank() == 1)
"""


def wait(folder, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "wait.py").write_text(WAIT)
    return run_python(folder / "wait.py", folder, *options, processes=2)


def test_the_others_find_what_the_first_process_made(tmp_path):
    done = wait(tmp_path)
    assert done.returncode == 0, done.stderr


def test_where_the_first_process_fails_the_others_fail_too(tmp_path):
    done = wait(tmp_path, "fail", "second")
    assert done.returncode != 0
    assert "the disk is full" in done.stderr
    assert not (tmp_path / "second").exists()


class Store:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.waited: list[timedelta] = []

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        self.waited.append(timeout)

    def get(self, key: str) -> bytes:
        return b"done"


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_first_process_is_waited_for_long(as_process, monkeypatch, number):
    as_process(number, 2)
    store, calls = Store(), []

    def rendezvous(*arguments, **options):
        calls.append(options)
        yield store, number, 2

    monkeypatch.setattr(dist, "rendezvous", rendezvous)
    monkeypatch.setattr(distributed, "_store", None)
    monkeypatch.setattr(distributed, "_waits", 0)
    for _ in range(3):
        with rank_zero_first():
            pass
    assert calls == [{}]  # a wrong address fails after torch's own time
    assert len(store.values) == (3 if number == 0 else 0)
    assert store.waited == ([timedelta(days=1)] * 3 if number == 1 else [])


SLOW = """
import sys
import torch.distributed as dist
from gtc_pyg.distributed import rank, rank_zero_first
wait = dist.TCPStore.wait
def slow(*arguments):
    wait(*arguments)
    sys.stdin.read()
dist.TCPStore.wait = slow
with rank_zero_first():
    pass
if rank() == 0:
    print("left", flush=True)
    sys.stdin.read()
"""


def test_a_slow_process_can_still_read_the_store():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "none"}
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SLOW], env=environment | {"RANK": number}, **pipes
                )
            )
            for number in "01"
        )
        stack.callback(first.kill)
        stack.callback(second.kill)
        left = first.stdout.readline()
        # Each ends as soon as its standard input is closed, the second one first.
        errors = [process.communicate(timeout=LIMIT)[1].decode() for process in (second, first)]
    assert left == b"left\n", errors
    assert [first.returncode, second.returncode] == [0, 0], errors
