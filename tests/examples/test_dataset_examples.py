"""The scripts of the paper's data sets and beyond, on small folders in the formats they read."""

import array
import csv
import gzip
import importlib
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, save_npz

from gtc_pyg.experiment import DEFAULTS
from tests.processes import run_python

ROOT = Path(__file__).parents[2]
NUM_USERS, NUM_ITEMS = 30, 20
CELLPHONE = "Cell_Phones_and_Accessories"


def interactions() -> list[tuple[int, int]]:
    """Ten items of each user, so that everybody is in the five-core."""
    rng = np.random.default_rng(0)
    return [(u, i) for u in range(NUM_USERS) for i in rng.choice(NUM_ITEMS, 10, replace=False)]


def write_mmrec(
    root: Path, name: str, dense: tuple[str, ...], graphs: tuple[str, ...] = ()
) -> None:
    raw, rng = root / "raw", np.random.default_rng(1)
    raw.mkdir()
    rows = ["userID\titemID\trating\ttimestamp\tx_label"]
    for k, (u, i) in enumerate(interactions()):
        rows.append(f"{u}\t{i}\t5.0\t1300000000\t{(k % 10 == 8) + 2 * (k % 10 == 9)}")
    (raw / f"{name}.inter").write_text("\n".join(rows))
    for modality in dense:
        np.save(raw / f"{modality}_feat.npy", rng.standard_normal((NUM_ITEMS, 100)))
    for modality in graphs:
        near = np.eye(NUM_ITEMS) + np.eye(NUM_ITEMS, k=1) * 0.5
        save_npz(raw / f"{modality}_knn10_cos.npz", csr_matrix(near.astype(np.float32)))


def write_amazon(root: Path) -> None:
    raw, rng = root / "raw", np.random.default_rng(2)
    raw.mkdir()
    asins = [f"B{i:09d}" for i in range(NUM_ITEMS)]
    rows = "".join(f"A{u:013d},{asins[i]},4.0,1300000000\n" for u, i in interactions())
    (raw / f"ratings_{CELLPHONE}.csv").write_text(rows)
    with gzip.open(raw / f"meta_{CELLPHONE}.json.gz", "wt") as file:
        for i, asin in enumerate(asins):
            words = {"title": f"Case {i % 4}", "categories": [["Cases", f"C{i % 3}"]]}
            file.write(f"{ {'asin': asin, **words}!r}\n")
    with open(raw / f"image_features_{CELLPHONE}.b", "wb") as file:
        for asin in asins[1:]:
            file.write(asin.encode())
            array.array("f", rng.random(4096).tolist()).tofile(file)


def options(root: Path) -> list[str]:
    quick = ["--epochs", "1", "--threads", "1", "--quiet"]
    return ["--root", str(root), *quick, "--out", str(root / "r.csv"), "--logs", str(root / "logs")]


def labels(root: Path, name: str) -> dict[str, str]:
    """The models' features, after a look at the rest of the rows."""
    with (root / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {name}
    assert {row["preset"] for row in rows} == {"default"}
    assert len(rows) == 5 * 2 * 4 * 3  # models, splits, metrics, lengths
    assert all(0 <= float(row["value"]) <= 1 for row in rows)
    return {row["model"]: row["features"] for row in rows}


@pytest.mark.parametrize(
    ("name", "dense", "graphs", "features"),
    [
        ("baby", ("image", "text"), (), "image+text"),
        ("baby", ("image", "text"), ("image", "text"), "image+text"),
        ("sports", ("image", "text"), (), "image+text"),
        ("sports", ("text",), ("image",), "image+text (graph-derived features: image)"),
        ("clothing", (), ("image", "text"), "image+text (graph-derived features: image+text)"),
        ("microlens", ("image", "text"), (), "image+text"),
        ("microlens", ("audio", "image", "text", "video"), (), "audio+image+text+video"),
        ("microlens", ("image", "video"), (), "image+video"),
        ("cellphone", ("image", "text"), (), "image+text"),
    ],
)
def test_a_folder_in_the_format_of_mmrec(tmp_path, monkeypatch, name, dense, graphs, features):
    write_mmrec(tmp_path, name, dense, graphs)
    script = ROOT / "examples" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *options(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    models = ("gtc", "mgcn", "freedom", "spectral")
    derived = {**dict.fromkeys(models, features), "lightgcn": "none"}
    assert labels(tmp_path, name) == derived


def test_cellphone_from_the_publishers_files_as_a_user_starts_it(tmp_path):
    write_amazon(tmp_path)
    done = run_python(ROOT / "examples" / "cellphone.py", *options(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "cellphone, test" in done.stdout
    assert labels(tmp_path, "cellphone")["gtc"] == "image+text (tfidf256)"


@pytest.mark.parametrize("name", ["sports", "clothing", "microlens", "cellphone", "baby"])
def test_the_default_preset_is_in_one_place(name):
    assert importlib.import_module(f"examples.{name}").SETTINGS is DEFAULTS
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) <= 120


def test_an_empty_folder_is_told_what_belongs_there(tmp_path, monkeypatch, capsys):
    script = ROOT / "examples" / "sports.py"
    monkeypatch.setattr(sys, "argv", [str(script), *options(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().err
    assert re.search(r"error: missing file 'sports\.inter': .*raw", said) and said.count("\n") == 1
