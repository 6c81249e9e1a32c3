import defaults as bench
from gtc_pyg.experiment import Settings


def test_bare_models_have_rows_once_and_a_report(tmp_path, monkeypatch, capsys):
    asked, measured = [], bench.measured

    def spied(model, dataset, settings, seed):
        asked.append((model, dataset.num_users, dataset.num_items, settings, seed))
        return measured(model, dataset, settings, seed, epochs=1)

    monkeypatch.setitem(bench.ITEMS, 60, 80)
    monkeypatch.setattr(bench, "measured", spied)
    out = tmp_path / "rows.csv"
    options = ["--out", str(out), "--users", "60", "--models", "spectral", "gtc", "--seeds"]
    bench.main([*options, "0"])
    bench.main([*options, "0", "1"])
    wanted = [("spectral", 0), ("gtc", 0), ("spectral", 1), ("gtc", 1)]
    assert asked == [(model, 60, 80, Settings(), seed) for model, seed in wanted]
    rows = bench.DEFAULTS.rows(out)
    assert [(row["model"], int(row["seed"])) for row in rows] == wanted
    assert all(all(row.values()) for row in rows)
    assert [row["best_epoch"] for row in rows] == ["0", "1"] * 2
    capsys.readouterr()
    bench.main(["--out", str(out), "--report"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["| 60", "SpectralFilter", "2"],
        ["| 60", "GTC", "2"],
    ]
    assert "±" in lines[3] and "| 1 ± 0 |" in lines[3]
