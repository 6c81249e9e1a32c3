"""A few hundred hostile files for each reader, and what the fuzzer itself would notice."""

import os
import random
from pathlib import Path

import pytest

from tests.stress import fuzz, fuzz_targets, fuzz_worker

ROOT = Path(__file__).parents[2]
SLOW = ("config", "folder")


def a_run(target, tmp_path):
    return fuzz_worker.Run(target, tmp_path, tmp_path, lambda: fuzz_targets.writing)


@pytest.fixture(autouse=True)
def watches_end(monkeypatch):
    """An audit hook cannot be taken away, only turned off."""
    made = []
    original = fuzz_worker.Watch.__init__
    monkeypatch.setattr(
        fuzz_worker.Watch, "__init__", lambda self, own: (original(self, own), made.append(self))[0]
    )
    yield
    for watch in made:
        watch.on = False


def test_every_reader_has_a_target():
    assert set(fuzz.NAMES) == set(fuzz_targets.TARGETS)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", fuzz.NAMES)
def test_hostile_files_are_refused_by_documented_errors(name, tmp_path):
    run = a_run(fuzz_targets.TARGETS[name], tmp_path)
    fuzz_worker.run_by_mutation(run, 60 if name in SLOW else 200, seed=7)
    assert run.faults == {}
    assert run.outcomes["ValueError"] > 20
    assert len(run.messages) >= 1 + run.target.named


@pytest.mark.parametrize("name", fuzz.NAMES)
def test_valid_files_are_read(name, tmp_path):
    target = fuzz_targets.TARGETS[name]
    run = a_run(target, tmp_path)
    run(run.seeds[0])
    assert run.outcomes == {"accepted": 1}


def a_target(read):
    return fuzz_targets.Target(lambda folder: [b"seed"], read)


def refuses(folder, content):
    if content == b"bad":
        raise KeyError("x")
    raise ValueError(f"{folder}: no")


def test_what_is_a_fault(tmp_path):
    def read(folder, content):
        if content == b"takes":
            return bytearray(300 * 2**20)
        if content == b"asks":
            try:
                return bytearray(2**62)
            except MemoryError as error:
                raise ValueError(f"{folder}: no") from error
        if content == b"runs":
            os.system("true")
        if content == b"writes":
            (folder / "left").write_text("x")
        if content == b"nameless":
            raise ValueError("no")
        refuses(folder, content)
        return None

    run = a_run(a_target(read), tmp_path)
    run(b"fine")
    assert run.faults == {}
    expected = {
        b"bad": "not documented: KeyError",
        b"nameless": "names no file",
        b"takes": "memory taken",
        b"asks": "memory asked for",
        b"runs": "not allowed, os.system",
        b"writes": "not allowed, open",
    }
    for content, start in expected.items():
        run.faults.clear()
        run(content)
        (key,) = run.faults
        assert key.startswith(start)
        assert (tmp_path / run.faults[key]["input"]).read_bytes() == content


def test_the_same_seed_gives_the_same_inputs(tmp_path):
    def inputs(seed):
        seen = []
        run = a_run(a_target(refuses), tmp_path)
        change, rng = run.mutation(), random.Random(seed)
        seen = [change(b"userID\t0\n", rng) for _ in range(50)]
        return seen

    assert inputs(1) == inputs(1) != inputs(2)


def test_a_command_resumes_and_writes_its_row(tmp_path, monkeypatch):
    command = ["--target", "pickle", "--engine", "mutation", "--inputs", "60", "--part", "60"]
    command += ["--work", str(tmp_path), "--out", str(tmp_path / "o.csv")]
    assert fuzz.main(command) == 0
    (row,) = fuzz.read_rows(tmp_path / "o.csv")
    assert row["inputs"] == "60" and row["faults"] == "0" and row["target"] == "pickle"
    assert int(row["accepted"]) + int(row["refused"]) == 60
    monkeypatch.setattr(fuzz, "_wait", None)  # what is done is not done again
    assert fuzz.main(command) == 0
    again = fuzz.read_rows(tmp_path / "o.csv")[1]
    assert again == row


def test_no_archive_is_unpacked_anywhere():
    """Members of archives go into memory alone, so that none can climb out of a folder."""
    calls = (
        "extractall",
        ".extract(",
        "unpack_archive",
        "tarfile.open",
        "TarFile",
        "shutil.unpack",
    )
    for folder in ("gtc_pyg", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not [call for call in calls if call in path.read_text()], path
