import csv

import pytest

from gtc_pyg.experiment import (
    HEADER,
    Settings,
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


def test_recommenders_are_saved_after_the_rows_where_there_is_a_place(dataset, tmp_path, capsys):
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
