"""The example runs on its own shop and on a user's files, and the page says what it does."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "examples/own_data.py")


def start(*options: object) -> str:
    out = io.StringIO()
    with redirect_stdout(out), patch.object(sys, "argv", [SCRIPT, *map(str, options)]):
        runpy.run_path(SCRIPT, run_name="__main__")
    return out.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    return logs / "own_data", start("--epochs", 1, "--quiet", "--logs", logs)


def test_without_arguments_it_makes_a_shop_and_recommends(shop):
    folder, out = shop
    assert len(Path(SCRIPT).read_text().splitlines()) <= 120
    seen = pd.read_csv(folder / "interactions.csv").groupby("user")["item"].agg(set)
    rows = [line.split() for line in out.splitlines() if line.startswith("u0")]
    assert [row[:2] for row in rows] == [[f"u00{u}", str(r)] for u in range(3) for r in range(1, 6)]
    for user, _, item, _, *title in rows:
        assert item not in seen[user]
        assert title == ["Thing", "no.", str(int(item[4:]))]


def test_columns_of_other_names_and_ids_with_zeros(shop, tmp_path):
    folder, _ = shop
    table = pd.read_csv(folder / "interactions.csv")
    table["customer"] = table["user"].str[1:]  # 000 to 299
    table["seconds"] = pd.to_datetime(table["time"]).dt.as_unit("s").astype("int64")
    table = table.rename(columns={"item": "sku", "rating": "stars"}).drop(columns=["user", "time"])
    table.to_csv(tmp_path / "log.csv", index=False)
    image = pd.read_csv(folder / "image.csv").rename(columns={"item": "sku"})
    image.to_csv(tmp_path / "image.csv", index=False)
    names = ("--user", "customer", "--item", "sku", "--rating", "stars", "--time", "seconds")
    options = ("--min-rating", 4, "--split", "leave_last_out", "--for", "007", "--k", 3)
    content = ("--csv", tmp_path / "log.csv", "--features", f"image={tmp_path / 'image.csv'}")
    rest = ("--epochs", 1, "--quiet", "--logs", tmp_path, "--save", tmp_path / "saved")
    out = start(*names, *options, *content, *rest)
    rows = [line.split() for line in out.splitlines() if line.startswith(" 007")]
    assert [row[:2] for row in rows] == [["007", str(rank)] for rank in (1, 2, 3)]
    assert f"saved in {tmp_path / 'saved'}" in out


LOG = "user,item,when\na,x,31.01.2025\nb,y,01.02.2025\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--csv nope.csv", "missing file 'nope.csv': expected in the folder"),
        ("--csv log.csv --time when", "'31.01.2025', expected a date as 'ISO8601' says, 2 such in"),
        ("--csv log.csv --user usr", "no column 'usr' (it has ['user', 'item', 'when']); did you"),
        ("--csv whole.csv", "the data has no content, which items could be alike by"),
        ("--csv log.csv --features text", "--features must be NAME=FILE, like text=text.npy"),
        ("--csv log.csv --features text=no.npy", "missing file 'no.npy'"),
        ("--csv log.csv --features text=sku.csv", "has no column 'item' and no index of ids, but"),
        ("--csv log.csv --features text=log.csv", "must hold numbers, [n, F]"),
        ("--csv log.csv --items sku.csv --features text=a.csv", "'items' has no column 'item'"),
        ("--csv empty.csv", "empty.csv: expected a whole table in CSV"),
        ("--csv log.csv --split rand", "did you mean 'random'?"),
        ("--csv log.csv --min-rating 3", "'min_rating' (3.0) needs 'rating'"),
    ],
)
def test_what_is_wrong_is_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG)
    whole = "".join(f"u{row % 3},i{row % 11}\n" for row in range(33))
    (tmp_path / "whole.csv").write_text(f"user,item\n{whole}")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "sku.csv").write_text("sku,x\nx,1.0\ny,2.0\n")
    (tmp_path / "a.csv").write_text("item,x\nx,1.0\ny,2.0\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        start(*options.split())
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("own_data.py: error: ") and err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        ("docs/own_data.md", 32),
        ("README.md", 15),
    ],
)
def test_the_code_of_a_page_runs(page, lines, shop, tmp_path, monkeypatch, capsys):
    folder, _ = shop
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)[1]
    preset = "Settings()" if page == "README.md" else 'DEFAULTS["gtc"]'
    assert code.count("\n") <= lines and code.count(preset) == 1
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    exec(code.replace(preset, f"{preset}, epochs=1, progress=False"), {})
    words = capsys.readouterr().out.split()
    assert [word for word in words if word.startswith("u0")] == ["u007"] * 5 + ["u042"] * 5
    assert (tmp_path / "outputs/shop").is_dir()
