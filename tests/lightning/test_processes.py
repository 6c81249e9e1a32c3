"""Two gloo processes, started by torchrun, do what one process does."""

import csv
import runpy
from pathlib import Path

import pytest
import torch

from gtc_pyg.lightning import fit, training
from gtc_pyg.lightning.processes import AverageGradients, process_options
from gtc_pyg.models import LightGCN
from tests.processes import run_python

SCRIPT = Path(__file__).with_name("scenarios.py")
EXACT = ["lightgcn", "freedom", "gtc", "lightgcn-sampled"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[dict, list[dict], Path, Path]:
    """What one process reports, what each of two does, and where the files are."""
    out = tmp_path_factory.mktemp("processes")
    done = run_python(SCRIPT, "run_all", out / "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    threads = torch.get_num_threads()
    runpy.run_path(str(SCRIPT))["run_all"](out / "one")
    torch.set_num_threads(threads)
    two = [torch.load(out / "two" / f"report{rank}.pt") for rank in range(2)]
    return torch.load(out / "one" / "report0.pt"), two, out / "one", out / "two"


def report(found: dict, name: str) -> dict:
    if name not in found:
        pytest.skip("neighbours are sampled by torch-sparse")
    return found[name]


@pytest.mark.parametrize("name", EXACT)
def test_the_loss_curve_is_that_of_one_process(runs, name):
    one, two = report(runs[0], name), report(runs[1][0], name)
    assert len(one["losses"]) == 54
    assert one["losses"][-1] < one["losses"][0]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_metrics_of_every_epoch_are_those_of_one_process(runs, name):
    one, two = report(runs[0], name), report(runs[1][0], name)
    for expected, got in zip(one["history"], two["history"], strict=True):
        assert got == pytest.approx(expected, abs=1e-6)
    assert two["test"] == pytest.approx(one["test"], abs=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_the_weights_are_those_of_one_process(runs, name):
    one, two = report(runs[0], name)["state"], report(runs[1][0], name)["state"]
    for key, expected in one.items():
        torch.testing.assert_close(two[key], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*EXACT, "gtc-sampled"])
def test_weights_are_equal_in_both_processes_after_every_epoch(runs, name):
    first, second = (report(found, name) for found in runs[1])
    assert first["sums"] == second["sums"]
    assert len(set(first["sums"])) == len(first["sums"]) > 1
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])
    assert first["history"] == second["history"]
    assert first["test"] == second["test"]


def test_every_user_is_ranked_once_an_epoch_by_one_process(runs):
    users = [found["lightgcn"]["users"] for found in runs[1]]
    assert users[0].numel() != users[1].numel()
    per_epoch = torch.cat(users).bincount() / 9
    assert torch.equal(per_epoch.nonzero().view(-1), runs[0]["ranked"])
    assert set(per_epoch.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", EXACT)
def test_logged_losses_are_those_of_one_process(runs, name):
    report(runs[0], name)
    tables = []
    for folder in runs[2:]:
        with (folder / "rank0" / "runs" / "logs" / name / "metrics.csv").open() as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        tables.append(rows)
    assert any(key.startswith("train/ranking") for row in tables[0] for key in row)
    for expected, got in zip(*tables, strict=True):
        assert got == pytest.approx(expected, abs=1e-5)


def test_the_first_process_alone_writes_and_prints(runs):
    one, two, folder_of_one, folder = runs
    assert list((folder / "rank1").rglob("*")) == []

    def files(base: Path) -> set[str]:
        found = (path for path in base.rglob("*") if path.is_file())
        return {str(path.relative_to(base)) for path in found if "events" not in path.name}

    assert files(folder / "rank0") == files(folder_of_one / "rank0")
    assert [bool(found["printed"]) for found in two] == [True, False]
    assert two[0]["printed"] == one["printed"]
    rows = (folder / "rank0" / "rows.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 4 * 3
    assert all(row.endswith("threads in each of 2 processes") for row in rows[1:])


def test_the_first_process_builds_and_the_others_find(runs):
    assert [found["found"] for found in runs[1]] == [False, True]


def test_the_impossible_is_refused_with_a_remedy(runs):
    for found in runs[1]:
        batch, devices, nodes = found["refused"]
        assert "'batch_size' must be at least the number of processes, 2 (got 1)" in batch
        assert "asks for devices=3, and torchrun started 2" in devices
        assert "leave 'devices' out" in devices
        assert "leave 'num_nodes' out" in nodes


@pytest.mark.slow
def test_a_failure_of_one_process_ends_all(tmp_path):
    # gloo itself would wait for half an hour
    done = run_python(SCRIPT, "fail", tmp_path, processes=2)
    assert done.returncode != 0
    assert "process 1 fails" in done.stderr


def test_several_devices_without_torchrun_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"devices=2 .* torchrun --nproc-per-node 2"):
        fit(LightGCN(60, 40), dataset, out=tmp_path, trainer_kwargs={"devices": 2})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def torchrun_of(monkeypatch):
    def pretend(local: int, total: int, gpus: int) -> None:
        for name, value in (("WORLD_SIZE", total), ("LOCAL_WORLD_SIZE", local), ("RANK", 0)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return pretend


def test_each_process_has_one_device_on_one_machine_or_more(torchrun_of):
    torchrun_of(2, 4, gpus=2)
    options = process_options({})
    assert (options["devices"], options["num_nodes"]) == (2, 2)
    assert options["use_distributed_sampler"] is False


@pytest.fixture
def trainer_options(dataset, monkeypatch, tmp_path):
    """The options that ``fit`` hands to Lightning's trainer."""

    def of(**trainer_kwargs) -> dict:
        found = {}

        def trainer(**options):
            found.update(options)
            raise InterruptedError

        monkeypatch.setattr(training, "Trainer", trainer)
        with pytest.raises(InterruptedError):
            fit(LightGCN(60, 40), dataset, out=tmp_path, trainer_kwargs=trainer_kwargs)
        return found

    return of


@pytest.mark.parametrize(
    ("wanted", "given"), [("auto", 1), (1, 1), ("1", 1), ([0], [0]), ([1], [1]), ((1,), [1])]
)
def test_one_process_has_one_device_and_may_choose_it(trainer_options, wanted, given):
    options = trainer_options(devices=wanted, gradient_clip_val=3)
    assert (options["devices"], options["num_nodes"]) == (given, 1)
    assert options["gradient_clip_val"] == 3


@pytest.mark.parametrize("wanted", [2, -1, "2", [0, 1], []])
def test_one_process_has_no_several_devices(wanted):
    with pytest.raises(ValueError, match="in one process; start one process for each device"):
        process_options({"devices": wanted})


def test_no_wish_goes_before_what_several_processes_need(torchrun_of, trainer_options):
    torchrun_of(2, 2, gpus=0)
    wanted = {"devices": "auto", "strategy": "auto", "use_distributed_sampler": True}
    options = trainer_options(**wanted)
    assert (options["devices"], options["num_nodes"]) == (2, 1)
    assert isinstance(options["strategy"], AverageGradients)
    assert options["use_distributed_sampler"] is False


def test_another_strategy_is_refused_and_one_of_ours_kept(torchrun_of):
    torchrun_of(2, 2, gpus=0)
    with pytest.raises(ValueError, match=r"strategy='ddp'.*leave 'strategy' out"):
        process_options({"strategy": "ddp"})
    own = AverageGradients(process_group_backend="gloo")
    assert process_options({"strategy": own})["strategy"] is own


def test_more_processes_than_gpus_are_refused(torchrun_of):
    torchrun_of(4, 4, gpus=2)
    with pytest.raises(ValueError, match=r"4 processes on a machine with 2 GPUs.*per-node 2"):
        process_options({})
    assert process_options({"accelerator": "cpu"})["devices"] == 4


def test_machines_with_other_numbers_of_processes_are_refused(torchrun_of):
    torchrun_of(2, 3, gpus=0)
    with pytest.raises(ValueError, match="2 of 3 processes here"):
        process_options({})
