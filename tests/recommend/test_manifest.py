import pytest
import yaml

from gtc_pyg.recommend import manifest

CONFIG, TENSORS = manifest.CONFIG, manifest.TENSORS


@pytest.fixture
def place(tmp_path):
    for name in manifest.FILES:
        (tmp_path / name).write_bytes(name.encode() * 10)
    manifest.write(tmp_path, {"model": "GTC"})
    return tmp_path


def edit(path, **changes):
    config = yaml.safe_load((path / CONFIG).read_text())
    (path / CONFIG).write_text(yaml.safe_dump({**config, **changes}))


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
            lambda p: edit(p, format_version=2, gtc_pyg="9.0"),
            ValueError,
            r"'format_version' is 2, .*load it with gtc-pyg 9.0",
        ),
        (lambda p: edit(p, sha256=None), ValueError, r"checksum is not that of config.yaml"),
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
