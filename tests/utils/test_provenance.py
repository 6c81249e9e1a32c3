import importlib.metadata

import torch

from gtc_pyg.utils.provenance import commit, peak_mib, reset_peak, versions


def test_versions_name_what_is_installed_and_the_threads():
    text = versions()
    assert text.startswith("gtc-pyg ")
    for name in ("torch", "torch-geometric", "lightning", "numpy"):
        assert f"{name} {importlib.metadata.version(name)}" in text
    assert f"{torch.get_num_threads()} threads" in text


def test_commit_is_one_line_without_spaces():
    assert commit() and commit().split() == [commit()]


def test_peak_begins_anew():
    reset_peak()
    before = peak_mib()
    torch.ones(2**24)  # 64 MiB
    assert peak_mib() > before + 50
    reset_peak()
    assert peak_mib() < before + 40
