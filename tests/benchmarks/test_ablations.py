import re
import statistics
from dataclasses import replace

import pytest

import ablations as bench
import ablations_report as report
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings, build_model
from gtc_pyg.transforms import ItemKNNGraph
from harness import filled
from harness.data import DATASETS, GRAPHS, TITLES
from harness.settings import alike, example_settings, from_json, to_json
from report import README

SMALL = Settings(
    lr=0.003,
    weight_averaging=0.5,
    epochs=2,
    batch_size=256,
    model={
        "content_filter": {"channels": 8},
        "heads": [{"class": "SpectralHead", "channels": 4}, {"class": "ItemBias"}],
    },
    spectral_start=True,
)


def planted(root, graph=None):
    graph = graph or ItemKNNGraph(k=4)
    return PlantedPreferences(40, 30, seed=0, mean_degree=7.0, transform=graph)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(DATASETS, "tiktok", planted)
    monkeypatch.setitem(GRAPHS, "tiktok", ItemKNNGraph(k=4))
    monkeypatch.setattr(bench, "example_settings", lambda name: {"gtc": SMALL})
    return planted(None)


def test_every_variant_changes_what_it_says_and_makes_a_model(small):
    made = {name: bench.settings_of(name, SMALL) for name in bench.VARIANTS | bench.SWEPT}
    assert made[bench.WHOLE] == SMALL
    texts = [to_json(settings) for settings in made.values()]
    assert len(set(texts)) == len(texts)
    for settings in made.values():
        build_model("gtc", small, settings.modalities, **settings.model)


@pytest.mark.parametrize("name", ["tiktok", "lfm2k", "baby"])
def test_no_variant_is_the_setting_of_an_example(name):
    base = example_settings(name)["gtc"]
    same = {name for name in bench.VARIANTS | bench.SWEPT if bench.is_same(name, base)}
    ranked_by_bpr = {"BPR"} if name == "tiktok" else set()
    assert same == ranked_by_bpr | {f"lr={base.lr:g}"}


def test_committed_rows_mean_what_the_variants_say():
    rows = {(r["dataset"], r["variant"], r["settings"]) for r in bench.ABLATIONS.rows()}
    for dataset, variant, text in rows:
        modalities = from_json(text).modalities  # without the one that is left out
        made = bench.settings_of(variant, example_settings(dataset)["gtc"], modalities or ())
        assert alike("gtc", text, to_json(made)), (dataset, variant)
    assert not alike("gtc", text, to_json(replace(made, lr=1.0)))


def test_runs_have_rows_and_what_has_a_row_is_skipped(small, tmp_path, monkeypatch):
    out = tmp_path / "rows.csv"
    options = ["--root", str(tmp_path), "--out", str(out), "--seed", "1"]
    names, graphs = [bench.WHOLE, "no diffusion", "without text"], []

    def spied(root, graph=None):
        graphs.append(graph)
        return planted(root, graph)

    monkeypatch.setitem(DATASETS, "tiktok", spied)
    bench.main([*options, "--variants", *names])
    rows = bench.ABLATIONS.rows(out)
    assert [row["variant"] for row in rows] == names
    assert all(all(row.values()) for row in rows)
    left = from_json(rows[2]["settings"]).modalities
    assert left == [name for name in small.modalities if name != "text"]
    rest = [name for name in small.modalities if name != "text"]
    assert graphs[0] is None and set(graphs[1].weights) == set(rest) and len(graphs) == 2
    monkeypatch.setattr(bench, "measured", None)
    bench.main([*options, "--variants", *names])
    assert bench.ABLATIONS.rows(out) == rows
    with pytest.raises(ValueError, match="unknown variants"):
        bench.main([*options, "--variants", "no luck"])
    monkeypatch.setattr(bench, "example_settings", lambda name: {"gtc": replace(SMALL, lr=1.0)})
    with pytest.raises(ValueError, match="of other settings: remove the rows like"):
        bench.main([*options, "--variants", *names])


def test_a_sweep_shows_no_test(small, tmp_path):
    out = tmp_path / "rows.csv"
    options = ["--root", str(tmp_path), "--out", str(out), "--sweep", "--variants", "lr=0.004"]
    bench.main(options)
    (row,) = bench.ABLATIONS.rows(out)
    assert from_json(row["settings"]).lr == 0.004
    assert row["test_recall@20"] == row["test_ndcg@5"] == "" and row["val_recall@20"]


def test_a_modality_that_is_left_out_is_not_in_the_item_graph():
    assert bench.without("image", "baby", ["image", "text"]).weights == {"text": 0.9}
    graph = bench.without("audio", "tiktok", ["audio", "image"])
    assert (graph.k, graph.weights) == (10, {"image": 1.0})


def row(variant, seed, value, settings=SMALL):
    shared = {"dataset": "tiktok", "variant": variant, "seed": str(seed)}
    return (
        dict.fromkeys(bench.ABLATIONS.header, "")
        | shared
        | dict.fromkeys(report.COLUMNS, str(value))
        | {"settings": to_json(settings)}
    )


def test_the_table_by_hand():
    # Differences -.01, 0, -.005: mean -.005, deviation .005, t = -sqrt(3), p = .225.
    rows = [row("GTC", s, v) for s, v in enumerate((0.09, 0.10, 0.11))]
    rows += [row("neither", s, v) for s, v in enumerate((0.08, 0.10, 0.105))]
    rows.append(row("lr=0.1", 0, 0.5))
    lines = report.table(rows, "tiktok").splitlines()
    assert lines[2] == "| GTC | 3 | 0.1000 | 0.1000 | 0.1000 |"
    assert lines[3] == "| neither | 3 |" + " 0.0950 (-0.0050, p = 0.23) |" * 3
    assert len(lines) == 4
    assert report.table(rows[::-1], "tiktok").splitlines() == lines  # GTC first, as in VARIANTS
    assert report.table(rows, "baby") == report.tables([]) == "Not measured yet."
    assert report.tables(rows) == f"**TikTok**\n\n{report.table(rows, 'tiktok')}"
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        report.table([*rows, rows[0]], "tiktok")


def test_the_line_of_an_argument_has_the_default_and_gtc_itself(tmp_path):
    names = ("lr=0.001", "start_step=20", "start_step=400")
    rows = [row(name, 0, k / 10, bench.settings_of(name, SMALL)) for k, name in enumerate(names)]
    rows += [row("GTC", 0, 0.7), row("GTC", 1, 0.9)]
    assert report.line(rows, "tiktok", "lr") == [(0.001, 0.0), (0.003, 0.7)]
    assert report.line(rows, "tiktok", "start_step") == [(20, 0.1), (100, 0.7), (400, 0.2)]
    assert report.line(rows, "tiktok", "num_steps") == report.line(rows, "baby", "lr") == []
    with pytest.raises(ValueError, match="none of 'GTC' with seed 0"):
        report.draw([*rows[:3], rows[4]], tmp_path / "none.png")
    with pytest.raises(ValueError, match="nothing to draw"):
        report.draw(rows[3:], tmp_path / "none.png")
    report.draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_the_page_shows_the_committed_rows():
    page, rows = report.PAGE.read_text(), bench.ABLATIONS.rows()
    assert filled(page, report.texts(rows)) == page
    assert report.PLOT.exists() == (report.FIGURE in page)


def test_the_figures_in_the_pages_text_stand_in_its_tables():
    text, tables = report.PAGE.read_text().split("<!-- ablations -->")
    figures = [f"0{figure}" for figure in re.findall(r"(?<!\d)\.\d{4}\b", text)]
    chances = [f"p = 0{p})" for p in re.findall(r"\bp = (\.\d+)", text)]
    assert len(figures) > 10 and len(chances) > 5
    assert [figure for figure in figures + chances if figure not in tables] == []


def test_total_correlation_is_not_seen_to_help():
    # What the first lines of the page and the README say.
    rows, cells = bench.ABLATIONS.rows(), []
    for dataset in TITLES:
        for line in report.table(rows, dataset).splitlines():
            if line.startswith(("| no total correlation", "| pairwise InfoNCE")):
                cells += re.findall(r"\(([+-][\d.]+), p = ([\d.e-]+)\)", line)[1:]  # on test
    assert len(cells) == 2 * 2 * len(TITLES)
    assert min(float(p) for _, p in cells) > 0.05
    largest = max(abs(float(difference)) for difference, _ in cells)
    assert f"by at most {largest:.4f}".replace(" 0.", " .") in report.PAGE.read_text()


def test_readme_says_what_diffusion_is_worth():
    def falls_by(dataset, column):
        found = report.variants(bench.ABLATIONS.rows(), dataset)
        whole, without = (
            statistics.fmean(float(run[column]) for run in found[name].values())
            for name in (bench.WHOLE, "no diffusion")
        )
        return 100 * (whole - without) / whole

    baby, lfm2k = falls_by("baby", "test_ndcg@5"), falls_by("lfm2k", "test_recall@20")
    assert falls_by("tiktok", "test_recall@20") < 0 and falls_by("tiktok", "test_ndcg@5") < 0
    assert (
        f"diffusion helps on Baby (without it NDCG@5 falls by {baby:.0f} %) and LFM2k "
        f"(Recall@20 by {lfm2k:.1f} %), each with p of about .01"
        in " ".join(README.read_text().split())
    )


def test_what_the_page_says_of_sensitivity_stands_in_the_rows():
    rows = bench.ABLATIONS.rows()
    section = report.PAGE.read_text().split("## Sensitivity")[1].split("<!-- sensitivity -->")[0]
    texts = re.findall(r"- \*\*(TikTok|LFM2k|Baby)\*\*(.*)", section)
    assert [name.lower() for name, _ in texts] == list(TITLES)
    for name, text in texts:
        runs = [row for row in rows if row["dataset"] == name.lower()]
        seeds = [float(r["val_recall@20"]) for r in runs if r["variant"] == bench.WHOLE]
        swept = [float(r["val_recall@20"]) for r in runs if "=" in r["variant"]]
        center, width = statistics.fmean(seeds), statistics.stdev(seeds)
        outside = sum(abs(value - center) > width for value in swept)
        assert f"{outside} of {len(swept)}" in text
        figures = re.findall(r"(?<!\d)\.\d{4}\b", text)
        known = {f"{value:.4f}".lstrip("0") for value in swept}
        difference = ".0005"  # both a learning rate and how far the rest moves, on Baby
        assert set(figures) - {difference} <= known and figures
