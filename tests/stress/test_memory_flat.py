import pytest

from gtc_pyg.experiment import Settings
from tests.stress import memory_flat


def test_growth_leaves_the_start_out_and_sees_a_leak():
    assert memory_flat.growth([10.0] + [100.0] * 99) == pytest.approx(0)
    leak = [100 + 0.1 * epoch for epoch in range(100)]
    assert memory_flat.growth(leak) == pytest.approx(109.45 / 101.45 - 1)
    with pytest.raises(ValueError, match="at least 10 epochs"):
        memory_flat.growth([1.0] * 9)


def test_a_row_for_each_epoch_whatever_validation_says(dataset):
    settings = Settings(lr=0.5, model={"content_filter": {"channels": 8}}, patience=1)
    rows = memory_flat.measure(dataset, settings, epochs=12, seed=0)
    assert len(rows) == 12
    assert all(mib > 50 for mib, _ in rows)
    assert [seconds for _, seconds in rows] == sorted(seconds for _, seconds in rows)


def test_the_line_says_what_the_rows_say():
    rows = [{"resident_mib": f"{600 + epoch / 10}"} for epoch in range(100)]
    assert memory_flat.report(rows) == (
        "GTC on LFM-2k, 100 epochs, resident memory after each: 600.0 to 609.9 MiB, growth +1.33 %."
    )
