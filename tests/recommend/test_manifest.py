import subprocess

import pytest
import yaml

from gtc_pyg.recommend import manifest

CONFIG, TENSORS = manifest.CONFIG, manifest.TENSORS


@pytest.fixture
def place(tmp_path):
    for name in manifest.FILES[1:]:
        (tmp_path / name).write_bytes(name.encode() * 10)
    manifest.write(tmp_path, {"model": "GTC"})
    return tmp_path


def edit(path, **changes):
    config = yaml.safe_load((path / CONFIG).read_text())
    (path / CONFIG).write_text(yaml.safe_dump({**config, **changes}))
    manifest.write_sums(path)


def test_what_was_written_is_read(place):
    assert manifest.checked(place)["model"] == "GTC"
    assert manifest.format_of(place) == manifest.FORMAT


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda p: (p / TENSORS).unlink(), FileNotFoundError, r"lacks \['model.safetensors'\]"),
        (lambda p: (p / CONFIG).unlink(), FileNotFoundError, r"lacks \['config.yaml'\]"),
        (lambda p: (p / CONFIG).write_text("a: [1"), ValueError, r"config.yaml: no YAML"),
        (lambda p: (p / CONFIG).write_text("[" * 5000), ValueError, r"config.yaml: no YAML"),
        (lambda p: (p / CONFIG).write_bytes(b"\xff\xfe\x00"), ValueError, r"no YAML"),
        (
            lambda p: (p / CONFIG).write_text("a: &a [1]\nb: [*a, *a]"),
            ValueError,
            r"config.yaml: no YAML \(aliases are not read\)",
        ),
        (lambda p: (p / CONFIG).write_text("- 1"), ValueError, r"not a saved recommender"),
        (lambda p: edit(p, format="mmrec"), ValueError, r"'format' must be .*not a saved"),
        (
            lambda p: edit(p, format_version=3, gtc_pyg="9.0"),
            ValueError,
            r"'format_version' is 3, .*load it with gtc-pyg 9.0",
        ),
        (
            lambda p: (p / CONFIG).write_text((p / CONFIG).read_text().replace("GTC", "MGCN")),
            ValueError,
            r"config.yaml: the checksum is not that of SHA256SUMS",
        ),
        (lambda p: (p / "SHA256SUMS").write_text(""), ValueError, r"config.yaml: the checksum"),
        (lambda p: (p / "SHA256SUMS").unlink(), FileNotFoundError, r"lacks \['SHA256SUMS'\]"),
        (lambda p: (p / CONFIG).write_text("a: 1\n" * 10**6), ValueError, r"more than 16384 bytes"),
        (
            lambda p: (p / CONFIG).write_text(
                "format: gtc-pyg recommender\nformat_version: 1" + ":1" * 5000
            ),
            ValueError,
            r"config.yaml: no YAML",
        ),
        (
            lambda p: edit(p, format_version=1, gtc_pyg="0.1.0"),
            ValueError,
            r"'format_version' is 1, .* reads 2: load it with gtc-pyg 0.1.0, which saved it",
        ),
        (
            lambda p: (p / TENSORS).write_bytes((p / TENSORS).read_bytes()[:-9]),
            ValueError,
            r"model.safetensors: the checksum",
        ),
    ],
)
def test_a_damaged_foreign_or_newer_folder_is_named(place, spoil, error, message):
    spoil(place)
    with pytest.raises(error, match=message):
        manifest.checked(place)


@pytest.mark.parametrize("text", [None, "a: [1", "- 1", "a: 1"])
def test_what_is_no_manifest_has_no_format(tmp_path, text):
    if text is not None:
        (tmp_path / CONFIG).write_text(text)
    assert manifest.format_of(tmp_path) is None


def test_the_checksums_are_those_of_sha256sum(place):
    done = subprocess.run(["sha256sum", "-c", manifest.SUMS], cwd=place, capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b": OK") == len(manifest.FILES)


def test_settings_that_could_not_be_read_are_not_written(place):
    with pytest.raises(ValueError, match=r"the settings take \d+ bytes, more than the 16384"):
        manifest.write(place, {"features": [f"modality {i}" for i in range(2000)]})
