import contextlib
import csv
import shutil

import pytest

from gtc_pyg.experiment import (
    HEADER,
    Settings,
    command,
    format_table,
    parse_args,
    run,
)
from gtc_pyg.recommend import Recommender


def test_a_run_prints_the_table_and_appends_its_rows(dataset, tmp_path, capsys):
    out = tmp_path / "rows.csv"
    options = f"--epochs 2 --seed 0 1 --quiet --logs {tmp_path} --out {out}".split()
    args = parse_args("", argv=options)
    settings = {name: Settings(lr=0.01) for name in ("gtc", "freedom", "lightgcn")}
    results = run("planted", dataset, settings, args)

    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == HEADER
    assert len(rows) == 3 * 2 * 2 * 4 * 3  # models, seeds, splits, metrics, lengths
    for row in rows:
        result = results[row["model"]][int(row["seed"])]
        metric = {"ndcg": "NDCG", "map": "MAP"}.get(row["metric"], row["metric"].capitalize())
        values = {"val": result.val, "test": result.test}[row["split"]]
        assert float(row["value"]) == pytest.approx(values[f"{metric}@{row['k']}"], abs=1e-6)
        assert int(row["best_epoch"]) == result.best_epoch
        assert float(row["peak_mib"]) > 10
        assert "torch " in row["versions"]
    features = {row["model"]: row["features"] for row in rows}
    assert features == {"gtc": "image+text", "freedom": "image+text", "lightgcn": "none"}

    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if "Recall@5" in line)
    assert header.split()[:4] == ["Recall@5", "Recall@10", "Recall@20", "NDCG@5"]
    assert {line.split()[0] for line in lines if "0." in line} >= {"GTC", "FREEDOM", "LightGCN"}


def test_the_table_shows_mean_and_sample_deviation():
    def metrics(value):
        names = ("Recall", "NDCG", "Precision", "MAP")
        return {f"{name}@{k}": value for name in names for k in (5, 10, 20)}

    lines = format_table({"GTC": [metrics(0.1), metrics(0.3)]}).splitlines()
    assert lines[1].split() == ["GTC"] + ["0.2000"] * 12
    assert lines[2].split() == ["±0.1414"] * 12


def test_a_model_without_settings_is_named(dataset, tmp_path):
    args = parse_args("", argv=f"--models mgcn --quiet --logs {tmp_path}".split())
    with pytest.raises(ValueError, match="no settings for 'mgcn': there are lightgcn"):
        run("planted", dataset, {"lightgcn": Settings()}, args)


@pytest.mark.parametrize("options", ["--models gtc,mf", "--epochs 0", "--threads x"])
def test_bad_options_stop_with_what_was_expected(options, capsys):
    with pytest.raises(SystemExit):
        parse_args("", argv=options.split())
    assert "expected" in capsys.readouterr().err


def test_recommenders_are_saved_after_the_rows_where_asked(dataset, tmp_path, capsys):
    settings = {"lightgcn": Settings(epochs=1, batch_size=64)}
    common = f"--quiet --logs {tmp_path / 'logs'} --out {tmp_path / 'rows.csv'}"
    args = parse_args("", argv=f"{common} --save {tmp_path / 'one'}".split())
    run("planted", dataset, settings, args)
    saved = Recommender.load(tmp_path / "one")
    assert saved.num_users == dataset.num_users and "saved to" in capsys.readouterr().err
    args = parse_args("", argv=f"{common} --seed 1 2 --save {tmp_path / 'two'}".split())
    run("planted", dataset, settings, args)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["lightgcn-1", "lightgcn-2"]
    rows = (tmp_path / "rows.csv").read_text()
    for place in ("logs", "logs/planted", "two"):  # before any training
        args = parse_args("", argv=f"{common} --save {tmp_path / place}".split())
        with pytest.raises((ValueError, FileExistsError), match="choose another"):
            run("planted", dataset, settings, args)
    assert (tmp_path / "rows.csv").read_text() == rows


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def resumed(dataset, tmp_path, monkeypatch, capsys):
    """A command that goes on, killed at a moment (before or after a run's rows) or not."""

    def command_of(folder, killed_at=None, more=""):
        calls, append = [], command._append_once

        def appended(path, rows):
            calls.append(rows[0]["model"])
            if killed_at == (len(calls), "before"):
                raise Killed
            append(path, rows)
            if killed_at == (len(calls), "after"):
                raise Killed

        monkeypatch.setattr(command, "_append_once", appended)
        out = tmp_path / folder / "rows.csv"
        options = f"--seed 0 1 --quiet --resume --logs {tmp_path / folder} --out {out} {more}"
        settings = {n: Settings(epochs=2, batch_size=100) for n in ("freedom", "lightgcn")}
        capsys.readouterr()
        with contextlib.suppress(Killed):
            run("planted", dataset, settings, parse_args("", argv=options.split()))
        monkeypatch.setattr(command, "_append_once", append)
        costs = ("seconds_per_epoch", "peak_mib")
        with out.open() as file:
            rows = [{k: r[k] for k in r if k not in costs} for r in csv.DictReader(file)]
        return rows, capsys.readouterr()

    return command_of


def test_killed_command_resumes_to_the_same_rows_and_table(resumed):
    whole, printed = resumed("whole")
    assert len(whole) == 4 * 24
    for moment in ((1, "after"), (2, "before"), (4, "after")):
        rows, _ = resumed("killed", moment)
        assert rows == whole[: 24 * (moment[0] - (moment[1] == "before"))]
    rows, again = resumed("killed")
    assert rows == whole and again.out == printed.out
    assert again.err.count("the run has ended") == 4


def test_rows_are_enough_where_the_checkpoints_are_gone(resumed, tmp_path):
    whole, printed = resumed("whole")
    shutil.rmtree(tmp_path / "whole/planted/checkpoints/freedom-1")
    rows, again = resumed("whole")
    assert rows == whole
    assert "FREEDOM on planted, seed 1: rows of commit" in again.err
    assert again.out.splitlines()[-1] == printed.out.splitlines()[-1]  # LightGCN's spread
    first, second = (text.out.split("FREEDOM")[1].split()[:12] for text in (printed, again))
    assert [float(x) for x in first] == pytest.approx([float(x) for x in second], abs=1.1e-4)


def test_other_values_of_the_same_run_are_refused(resumed, tmp_path):
    resumed("whole")
    path = tmp_path / "whole/rows.csv"
    path.write_text(path.read_text().replace(",recall,5,0.", ",recall,5,9.", 1))
    before = path.read_text()
    with pytest.raises(ValueError, match=r"rows.csv has rows of dataset planted, model f.*other"):
        resumed("whole")
    assert path.read_text() == before


def test_rows_that_are_there_twice_are_there(resumed, tmp_path):
    resumed("whole")
    path = tmp_path / "whole/rows.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows, *rows]) + "\n")
    before = path.read_text()
    resumed("whole")
    assert path.read_text() == before


def test_rows_of_other_content_are_not_kept(resumed, tmp_path):
    resumed("whole")
    path = tmp_path / "whole/rows.csv"
    path.write_text(path.read_text().replace("image+text", "image"))
    shutil.rmtree(tmp_path / "whole/planted/checkpoints")
    with pytest.raises(ValueError, match=r"rows.csv has rows of dataset planted"):
        resumed("whole")


def test_settings_of_a_file_go_before_the_scripts(dataset, tmp_path):
    file, out = tmp_path / "mine.yaml", tmp_path / "rows.csv"
    file.write_text("lightgcn:\n  epochs: 1\n  model: {num_layers: 1}\n")
    options = f"--models lightgcn --quiet --logs {tmp_path} --out {out} --config {file}"
    settings = {"lightgcn": Settings(epochs=9, batch_size=64)}
    with pytest.raises(ValueError, match=r"'--preset' must name the settings.*got 'default'"):
        run("planted", dataset, settings, parse_args("", argv=options.split()))
    args = parse_args("", argv=[*options.split(), "--preset", "mine"])
    (result,) = run("planted", dataset, settings, args)["lightgcn"]
    assert len(result.history) == 1 and result.model.num_layers == 1
    with out.open() as rows:
        assert {row["preset"] for row in csv.DictReader(rows)} == {"mine"}
    file.write_text("lightgcn:\n  epoch: 1\n")
    with pytest.raises(ValueError, match="epochs"):
        run("planted", dataset, settings, args)
