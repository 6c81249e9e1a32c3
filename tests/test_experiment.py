import csv

import pytest
import torch

from gtc_pyg import experiment
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import (
    DEFAULTS,
    HEADER,
    Settings,
    append_rows,
    build_model,
    default_graph,
    format_table,
    parse_args,
    run,
    train,
)
from gtc_pyg.models import FREEDOM, GTC, MGCN, LightGCN
from gtc_pyg.transforms import ItemKNNGraph


@pytest.fixture(scope="module")
def dataset() -> PlantedPreferences:
    return PlantedPreferences(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


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


def test_rows_never_join_a_file_with_another_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the header 'a,b', expected 'dataset,model"):
        append_rows(path, [])
    assert path.read_text() == "a,b\n1,2\n"


def test_appending_keeps_what_is_there_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    for seed in range(2):
        append_rows(path, [dict.fromkeys(HEADER, seed)])
    assert path.read_text().splitlines() == [",".join(HEADER)] + [
        ",".join([str(seed)] * len(HEADER)) for seed in range(2)
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.csv"]


def test_models_are_built_by_name_for_the_size_of_the_data(dataset):
    kinds = {"gtc": GTC, "mgcn": MGCN, "freedom": FREEDOM, "lightgcn": LightGCN}
    for name, kind in kinds.items():
        model = build_model(name, dataset)
        assert isinstance(model, kind)
        assert (model.num_users, model.num_items) == (60, 40)
    assert list(build_model("gtc", dataset, ["text"]).filter.encoders) == ["text"]
    for name in kinds:
        model = build_model(name, dataset, spectral_start=True)
        before = model.item_emb.weight.detach().clone()
        model.start_from(dataset[0]["user", "rates", "item"].edge_index)
        torch.testing.assert_close(model.item_emb.weight, before)
    with pytest.raises(ValueError, match="unknown model 'mf', expected one of lightgcn"):
        build_model("mf", dataset)


def test_a_model_is_trained_as_its_settings_say(dataset, monkeypatch):
    given = {}

    def fit(model, dataset, **options):
        given.update(options, model=model)

    monkeypatch.setattr(experiment, "fit", fit)
    settings = Settings(
        lr=0.5,
        epochs=3,
        patience=4,
        batch_size=7,
        modalities=["text"],
        model={"num_layers": 5},
        spectral_start=True,
        weight_averaging=0.9,
    )
    train("gtc", dataset, settings, seed=6, epochs=2, progress=False)
    model = given.pop("model")
    assert model.num_layers == 5 and list(model.filter.encoders) == ["text"]
    before = model.item_emb.weight.detach().clone()
    model.start_from(dataset[0]["user", "rates", "item"].edge_index)
    torch.testing.assert_close(model.item_emb.weight, before)
    fields = {"lr": 0.5, "patience": 4, "batch_size": 7, "modalities": ["text"]}
    more = {"weight_averaging": 0.9, "seed": 6, "epochs": 2, "progress": False}
    assert given == fields | more


def test_a_model_without_settings_is_named(dataset, tmp_path):
    args = parse_args("", argv=f"--models mgcn --quiet --logs {tmp_path}".split())
    with pytest.raises(ValueError, match="no settings for 'mgcn': there are lightgcn"):
        run("planted", dataset, {"lightgcn": Settings()}, args)


@pytest.mark.parametrize("options", ["--models gtc,mf", "--epochs 0", "--threads x"])
def test_bad_options_stop_with_what_was_expected(options, capsys):
    with pytest.raises(SystemExit):
        parse_args("", argv=options.split())
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("modalities", "weights"),
    [
        (["image", "text"], {"image": 0.1, "text": 0.9}),
        (["audio", "text", "video"], {"audio": 0.05, "text": 0.9, "video": 0.05}),
        (["text"], None),
        (["image", "video"], None),
        ([], None),
    ],
)
def test_the_default_graph_weighs_text_most_where_there_is_something_beside_it(modalities, weights):
    graph = default_graph(modalities)
    assert (graph.k, graph.weights) == (10, weights)


def test_the_default_preset_has_settings_for_every_model():
    assert set(DEFAULTS) == {"gtc", "mgcn", "freedom", "lightgcn"}
