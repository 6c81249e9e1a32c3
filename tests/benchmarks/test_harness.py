import csv
import importlib
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings
from gtc_pyg.transforms import ItemKNNGraph
from gtc_pyg.utils.provenance import commit, versions
from harness import (
    RESULTS,
    ROOT,
    Experiment,
    Options,
    append_rows,
    between,
    by_seed,
    claimed,
    filled,
    markdown,
    paired,
    read_rows,
    shown,
    spread,
    write_rows,
    write_text,
)
from harness.data import Part, interactions, trained
from harness.settings import changed, complete, from_json, nested, to_json
from harness.workers import Worker, ratios

HEADER = ["model", "value"]
ROWS = [{"model": "gtc, ours", "value": "0.1"}, {"model": 'a "b"\r\nc', "value": ""}]


def test_appended_rows_come_last_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    assert read_rows(path) == []
    append_rows(path, HEADER, ROWS)
    append_rows(path, HEADER, [{"model": "freedom"}])
    assert read_rows(path) == [*ROWS, {"model": "freedom", "value": ""}]
    assert path.read_bytes().startswith(b'model,value\n"gtc, ours",0.1\n')
    assert list(path.parent.iterdir()) == [path]


def test_a_file_without_rows_or_a_last_newline_is_appended_to(tmp_path):
    path = tmp_path / "rows.csv"
    for text, old in (("", 0), ("model,value\n", 0), ("model,value\na,1", 1)):
        path.write_text(text)
        append_rows(path, HEADER, ROWS)
        assert read_rows(path)[old:] == ROWS and len(read_rows(path)) == old + 2


@pytest.mark.parametrize("text", ["value,model\n1,a\n", "model\n", "model,value,seed\n"])
def test_a_foreign_header_is_refused(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows.csv must have the header .* \(got "):
        append_rows(path, HEADER, ROWS)
    assert path.read_text() == text


def test_rows_are_written_anew(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("other\n1\n")
    write_rows(path, HEADER, ROWS)
    assert read_rows(path) == ROWS


def test_a_row_of_other_columns_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, HEADER, ROWS)
    with pytest.raises(ValueError, match="seed"):
        append_rows(path, HEADER, [ROWS[0], {"seed": 1}])
    assert read_rows(path) == ROWS


def test_an_error_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write_text(path, "old\n")

    def fails(handle):
        os.ftruncate(handle, 2)
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no space left"):
            write_text(path, "new text\n")
    assert path.read_text() == "old\n"
    write_text(path, "new text\n")
    assert path.read_text() == "new text\n"
    assert list(tmp_path.iterdir()) == [path]


def test_text_between_marks_is_replaced_missing_marks_refused():
    page = "a\n<!-- x -->\n\n1\n\n<!-- end of x -->\nb\n<!-- y --><!-- end of y -->\n"
    once = between(page, "x", "| 2 |")
    assert once == page.replace("1", "| 2 |") and between(once, "x", "| 2 |") == once
    for start in ("", "<!-- gain -->"):
        with pytest.raises(ValueError, match="lacks '<!-- gain -->' or '<!-- end of gain -->'"):
            between(start, "gain", "1")


GRID = Experiment("none", "model* seed* settings value")


def test_header_ends_with_the_source_and_key_is_starred():
    assert GRID.key == ["model", "seed"]
    assert GRID.header == ["model", "seed", "settings", "value", "commit", "versions"]
    assert Experiment("x", "a* commit versions b").header == ["a", "commit", "versions", "b"]


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(4)), stop=st.integers(0, 4))
def test_a_stopped_grid_goes_on_without_repeating(tmp_path_factory, order, stop):
    out, ran = tmp_path_factory.mktemp("grid") / "rows.csv", []
    grid = [{"model": "gtc", "seed": seed} for seed in order]

    def measure(cell):
        ran.append(cell["seed"])
        return {"value": 2 * cell["seed"]}

    for cells in (grid[:stop], grid, grid[::-1]):
        GRID.run(cells, measure, out)
    assert ran == list(order)
    assert [(row["seed"], row["value"]) for row in read_rows(out)] == [
        (str(seed), str(2 * seed)) for seed in order
    ]


def test_rows_record_their_source_and_may_be_several(tmp_path):
    out = tmp_path / "rows.csv"
    two = [{"value": 1}, {"value": 2, "versions": "mine"}]
    GRID.run([{"model": "gtc", "seed": 0}], lambda cell: two, out)
    first, second = read_rows(out)
    assert first["commit"] == second["commit"] == commit()
    assert (first["versions"], second["versions"]) == (versions(), "mine")
    GRID.run([{"model": "gtc", "seed": 0}], None, out)


def test_rows_of_other_settings_are_refused_or_named(tmp_path, capsys):
    out, other = tmp_path / "rows.csv", {"settings": to_json(Settings(lr=0.5))}
    cell = {"model": "gtc", "seed": 0, "settings": to_json(Settings())}
    GRID.run([cell], lambda cell: {"value": 1}, out)
    with pytest.raises(ValueError, match="other settings: remove the rows like"):
        GRID.run([cell | other], None, out)
    GRID.run([cell | other], None, out, strict=False)
    assert "other settings, which is kept" in capsys.readouterr().err
    assert len(read_rows(out)) == 1
    whole = to_json(complete("gtc", Settings()))
    GRID.run([cell | {"settings": whole}], None, out)  # the same in more words


def test_earlier_settings_are_read_as_the_parts_they_were():
    earlier = {"score_scale": 2.0, "low_pass_strength": 0.25, "item_bias": True, "num_steps": 7}
    earlier |= {"num_negatives": 8, "alignment": "pairwise", "filter_weight": 0.5}
    settings = from_json(json.dumps({"lr": 0.1, "model": earlier}))
    assert settings.model == {
        "content_filter": {"strength": 0.05, "num_steps": 7},
        "alignment": {"class": "PairwiseInfoNCE"},
        "ranking": {"class": "SampledSoftmax", "num_negatives": 8, "scale": 2.0},
        "heads": [
            {"class": "SpectralHead", "channels": 128, "strength": 0.5},
            {"class": "ItemBias"},
        ],
        "edge_dropout": 0.0,
        "loss_weights": {"filter": 0.5},
    }
    plain = from_json(json.dumps({"model": {"similarity_gate": False}})).model
    assert (plain["ranking"], plain["heads"]) == ({"class": "BPR", "scale": 1.0}, [])
    assert plain["fusion"] == {"class": "UniformGate"}
    assert from_json(to_json(settings)) == settings
    assert from_json('{"model": {"edge_dropout": 0.5}}').model == {"edge_dropout": 0.5}


def test_changes_reach_into_parts_and_the_training():
    base = Settings(model={"ranking": {"class": "SampledSoftmax", "scale": 2.0}, "num_layers": 1})
    found = changed(base, {"lr": 0.1, **nested("ranking.num_negatives", 5)})
    assert found.lr == 0.1 and found.model["num_layers"] == 1
    assert found.model["ranking"] == {"class": "SampledSoftmax", "scale": 2.0, "num_negatives": 5}
    assert changed(base, {"ranking": {"class": "BPR"}}).model["ranking"] == {"class": "BPR"}


def test_a_claimed_cell_is_left_to_its_process(tmp_path):
    out, ran = tmp_path / "rows.csv", []
    grid = [{"model": "gtc", "seed": seed} for seed in (0, 1)]
    with claimed(out, "gtc", 0):
        GRID.run(grid, lambda cell: ran.append(cell["seed"]) or {"value": 0}, out)
    assert ran == [1]


def test_progress_shows_nothing_of_the_test_set():
    row = {"model": "gtc", "val_recall@20": "0.1", "test_recall@20": "0.2", "commit": "c"}
    assert shown(row | {"curve": "0.1 " * 30, "empty": ""}) == "model gtc, val_recall@20 0.1"


EXPERIMENTS = (
    "ablations cold_items explanations fold_in growth minibatch_accuracy missing_modality "
    "noise_mixture ranking search time_to_quality updating user_awareness where_it_helps"
)


@pytest.mark.parametrize("name", EXPERIMENTS.split(" "))
def test_columns_are_those_of_the_committed_rows(name):
    found = [v for v in vars(importlib.import_module(name)).values() if isinstance(v, Experiment)]
    (experiment,) = (x for x in found if x.name == name)
    with experiment.path.open(newline="") as file:
        assert next(csv.reader(file)) == experiment.header


def test_every_script_has_its_section_of_help(capsys):
    page = (ROOT / "benchmarks" / "README.md").read_text()
    scripts = [p for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text()]
    assert len(scripts) > 20
    for path in scripts:
        assert f"\n### `{path.name}`\n" in page
        text = " ".join(Options(str(path)).description.split())
        assert len(text) > 80 and "###" not in text


def test_options_have_the_type_of_their_default(tmp_path):
    parser = Options("fold_in.py", tmp_path / "x.csv", ["tiktok", "baby"], [0, 1], None)
    parser.add("--share", 0.1)
    parser.add("--sizes", [1, 2])
    parser.add("--quick", False)
    parser.add("--place", Path("a"))
    args = parser.parse_args(["--share", "0.5", "--sizes", "7", "--quick", "--place", "b"])
    assert (args.share, args.sizes, args.quick, args.place) == (0.5, [7], True, Path("b"))
    assert (args.dataset, args.root, args.seed, args.threads) == (
        "tiktok",
        "data/tiktok",
        [0, 1],
        None,
    )
    asked = []
    for argv in ([], ["--report"]):
        Options("fold_in.py").start(argv, lambda _: asked.append("run"), lambda _: asked.append(1))
    assert asked == ["run", 1]


def test_tables_and_pages_by_hand():
    assert markdown(["", "a"], [["x", 1]]) == "|  | a |\n| --- | --- |\n| x | 1 |"
    assert markdown(["", "a"], [["", 1]], "---|") == "| | a |\n|---|---|\n|  | 1 |"
    page = "<!-- x -->\n<!-- end of x -->"
    assert filled(page, {"x": "1"}, "\n") == "<!-- x -->\n1\n<!-- end of x -->"


def test_statistics_by_hand():
    rows = [{"seed": s, "m": m, "v": v} for s, m, v in [("0", "a", "1"), ("1", "a", "3")]]
    assert by_seed(rows, m="a") == {0: rows[0], 1: rows[1]}
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        by_seed([rows[0], rows[0]], m="a")
    assert spread([1.0, 3.0], 1) == "2.0 ± 1.4" and spread([0.5]) == "0.5000"
    assert spread([1.0, None]) == "not reached (1 of 2)" and spread([]) == ""
    theirs = {0: {"v": "0"}, 1: {"v": "1"}, 7: {"v": "9"}}
    difference, p, deviation = paired(by_seed(rows), theirs, "v")
    # Differences 1 and 2: t = 1.5 / 0.5 = 3 at one degree, p = 1 - 2 atan(3) / pi.
    assert (difference, deviation) == (1.5, pytest.approx(0.5**0.5))
    assert p == pytest.approx(0.2048, abs=1e-4)
    assert paired(by_seed(rows), {0: rows[0]}, "v") is None
    assert ratios([2.0, 4.0, 9.0], [1.0, 1.0, 3.0])["median"] == 3.0


def test_a_part_with_cold_items_and_fewer_users():
    whole = PlantedPreferences(40, 30, mean_degree=7.0)
    users, cold = torch.arange(0, 40, 2), torch.arange(30) < 5
    part = Part(whole, users, cold, ItemKNNGraph(k=3))
    for split in ("train", "val", "test"):
        user, item = interactions(whole, split)
        kept = (user % 2 == 0) & ~cold[item]
        assert torch.equal(interactions(part, split), torch.stack([user[kept] // 2, item[kept]]))


def test_changes_go_to_the_training_or_to_the_model():
    base = Settings(lr=0.1, model={"num_layers": 2})
    found = changed(base, {"lr": 0.2, "num_layers": 3})
    assert (found.lr, found.model, base.model) == (0.2, {"num_layers": 3}, {"num_layers": 2})


def test_kept_weights_rank_alike(tmp_path):
    dataset = PlantedPreferences(40, 30, mean_degree=7.0, transform=ItemKNNGraph(k=3))
    path = tmp_path / "kept" / "model.pt"
    first = trained("lightgcn", dataset, Settings(epochs=1), 0, path)
    again = trained("lightgcn", dataset, Settings(epochs=9), 0, path)
    assert first[1] == again[1]
    for ours, theirs in zip(first[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_processes_answer_and_a_dead_one_is_named():
    worker = Worker("a process", "no_such_module", {})
    with pytest.raises(RuntimeError, match="the process of a process ended at 'time'"):
        worker.ask("time")
    worker.process.communicate()


def test_no_script_changes_the_path_or_defines_a_source():
    for path in (ROOT / "benchmarks").rglob("*.py"):
        text = path.read_text()
        assert "sys.path" not in text and "git describe" not in text, path
    assert RESULTS == ROOT / "benchmarks" / "results"
