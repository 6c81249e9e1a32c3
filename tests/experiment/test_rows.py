import csv
import multiprocessing
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtc_pyg.experiment import HEADER, append_rows
from gtc_pyg.experiment.rows import _append_once

FORK = multiprocessing.get_context("fork")  # nothing is computed in these processes


def test_rows_never_join_a_file_with_another_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the header 'a,b', expected 'dataset,model"):
        append_rows(path, [])
    assert path.read_text() == "a,b\n1,2\n"


def test_appending_keeps_old_rows_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    for seed in range(2):
        append_rows(path, [dict.fromkeys(HEADER, seed)])
    assert path.read_text().splitlines() == [",".join(HEADER)] + [
        ",".join([str(seed)] * len(HEADER)) for seed in range(2)
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.csv"]


def test_rows_of_several_processes_are_all_kept(tmp_path):
    path = tmp_path / "rows.csv"

    def append(worker):
        for n in range(20):
            append_rows(path, [dict.fromkeys(HEADER, f"{worker}-{n}")])

    workers = [FORK.Process(target=append, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    counts = [0]
    while any(worker.is_alive() for worker in workers):
        if counts[-1] or path.exists():
            lines = path.read_text().splitlines(keepends=True)
            assert lines[0] == ",".join(HEADER) + "\n"
            assert lines[-1].endswith("\n")
            counts.append(len(lines))
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert counts == sorted(counts)
    with path.open(newline="") as file:
        found = [row["seed"] for row in csv.DictReader(file)]
    assert sorted(found) == sorted(f"{worker}-{n}" for worker in range(4) for n in range(20))
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]


def test_a_run_of_several_processes_is_appended_once(tmp_path):
    path = tmp_path / "rows.csv"
    run = [dict.fromkeys(HEADER, "0") | {"metric": name} for name in ("recall", "ndcg")]
    workers = [FORK.Process(target=_append_once, args=(path, run)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(path.read_text().splitlines()) == 3


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(TEXT, min_size=1, max_size=2), min_size=1, max_size=3))
def test_values_stay_what_they_are_when_more_is_appended(calls):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        for values in calls:
            append_rows(path, [dict.fromkeys(HEADER, value) for value in values])
        with path.open(newline="") as file:
            assert [row["model"] for row in csv.DictReader(file)] == [*chain(*calls)]


def test_a_file_whose_last_line_has_no_end_keeps_its_rows(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [dict.fromkeys(HEADER, 0)])
    path.write_text(path.read_text().removesuffix("\n"))
    append_rows(path, [dict.fromkeys(HEADER, 1)])
    assert path.read_text().splitlines()[1:] == [",".join([seed] * len(HEADER)) for seed in "01"]


def test_a_link_to_the_rows_stays_one(tmp_path):
    (tmp_path / "here").mkdir()
    link, path = tmp_path / "rows.csv", tmp_path / "here" / "rows.csv"
    link.symlink_to(path)
    for place in (link, path):
        append_rows(place, [dict.fromkeys(HEADER, 0)])
    assert link.is_symlink()
    assert len(path.read_text().splitlines()) == 3
