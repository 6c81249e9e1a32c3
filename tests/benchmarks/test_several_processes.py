import pytest

from harness import filled
from several_processes import PAGE, SEVERAL, gain_table

TEXT = " ".join(PAGE.read_text().split())


def test_the_page_shows_the_rows_or_says_there_are_none():
    if SEVERAL.path.exists():
        page = PAGE.read_text()
        assert filled(page, {"gain": gain_table(SEVERAL.rows())}) == page
    else:
        assert "<!-- gain --> Not measured yet on two idle cores" in TEXT


def test_gain_is_the_ratio_of_medians_over_rounds():
    seconds = {"1": (0.2, 0.3, 0.9), "2": (0.1, 0.15, 0.2)}
    rows = [
        dict.fromkeys(SEVERAL.header, "") | {"what": "ranking", "model": "gtc"}
        | {"processes": processes, "seconds": str(value)}
        for processes, values in seconds.items()
        for value in values
    ]  # fmt: skip
    last = gain_table(rows).splitlines()[-1]
    assert last == "| all users ranked | GTC | 300.0 | 150.0 | 2.00 |"


def test_without_rows_there_is_no_table():
    with pytest.raises(ValueError, match="nothing to show"):
        gain_table([])


def test_the_arithmetic_of_the_page_is_right():
    edges, users, items, width = 10**9, 50_000_000, 15_000_000, 64
    assert (edges // users, round(edges / items)) == (20, 67)
    rows, giga = users + items, 10**9
    table = rows * width * 4
    parts = {
        "tables": table,
        "moments": 2 * table,
        "edge_index": 2 * 2 * edges * 8,
        "sampler": 2 * edges * 8 + rows * 8,
        "negatives": edges * 8,
        "order": edges * 8,
        "similar": items * 10 * (16 + 4),
    }
    shown = {name: f"{size / giga:.1f}" for name, size in parts.items()}
    assert list(shown.values()) == ["16.6", "33.3", "32.0", "16.5", "8.0", "8.0", "3.0"]
    content = items * 2 * 128 * 4
    assert f"| {content / giga:.1f} |" in TEXT
    one = sum(parts.values())
    assert f"{' + '.join(shown.values())} = {one / giga:.1f}" in TEXT
    assert f"{one / giga:.1f} in each, {8 * round(one / giga, 1):.1f} for $P = 8$" in TEXT
    other = one - 3 * table
    assert f"67.5 = {(4 * table / 8 + other) / giga:.1f} |" in TEXT
    assert f"{other / giga:.1f}" == "67.5"
    assert f"| {4 * table / 8 / giga:.1f}, and a share of" in TEXT
    touched = 6144 * (1 + 10 + 50)
    assert f"{touched:,} rows: {touched * width * 4 / 1e6:.1f} MB" in TEXT
    assert f"is {-(-edges // 2048):,} steps" in TEXT
    assert f"received: {7 * touched * 264 / giga:.2f} GB" in TEXT
    exchanged = 2 * 7 * touched * width * 4 / giga
    assert f"95.9 MB: {exchanged:.2f} GB received" in TEXT
    assert f"{exchanged:.2f} GB are {exchanged / 12.5:.2f} s" in TEXT
    assert f"2 × 10⁹ × 12 = {2 * edges * 12 / giga:.1f}" in TEXT
