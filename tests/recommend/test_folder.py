import copy
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from gtc_pyg.models import LightGCN
from gtc_pyg.models.registry import MODELS
from gtc_pyg.recommend import Recommender, folder, manifest


def test_what_was_saved_answers_the_same(recommender, tmp_path):
    path = recommender.save(tmp_path / "mine")
    assert sorted(p.name for p in path.iterdir()) == sorted(
        ["config.yaml", "model.safetensors", "users.parquet", "items.parquet"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    loaded = Recommender.load(path)
    assert_frame_equal(loaded.recommend(k=5), recommender.recommend(k=5))
    assert_frame_equal(loaded.table, recommender.table)
    assert loaded.users.index.equals(recommender.users.index)
    assert loaded.items.index.dtype == recommender.items.index.dtype
    assert_frame_equal(loaded.fold_in([1000, 997]), recommender.fold_in([1000, 997]))
    for name, value in recommender.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


@pytest.mark.parametrize("kind", MODELS.values())
def test_every_model_comes_back(dataset, tmp_path, kind):
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    model = kind(60, 40) if kind is LightGCN else kind(60, 40, widths)
    recommender = Recommender(model, dataset)
    state = torch.random.get_rng_state()
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(loaded.model) is kind
    assert_frame_equal(loaded.recommend(k=3), recommender.recommend(k=3))


def test_a_new_process_with_other_threads_gives_the_same_lists(recommender, tmp_path):
    recommender.save(tmp_path / "m")
    expected = recommender.recommend(k=10)
    code = (
        "import sys, torch; torch.set_num_threads(2); from gtc_pyg.recommend import Recommender;"
        f"Recommender.load({str(tmp_path / 'm')!r}).recommend(k=10).to_json(sys.stdout, "
        "orient='split', double_precision=15)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = pd.DataFrame(**json.loads(done.stdout))
    assert_frame_equal(found, expected, check_exact=False, rtol=0, atol=1e-6, check_dtype=False)
    assert found["item"].tolist() == expected["item"].tolist()


def test_users_added_later_are_saved(recommender, tmp_path):
    recommender.add_users({"new": [1000, 997]})
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert_frame_equal(loaded.recommend("new"), recommender.recommend("new"))


def test_a_saved_recommender_is_replaced_and_anything_else_is_not(recommender, tmp_path):
    path = recommender.save(tmp_path / "m")
    recommender.add_users({"new": [1000]})
    recommender.save(path)
    assert Recommender.load(path).num_users == 61
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    other = tmp_path / "other"
    other.mkdir()
    recommender.save(other)  # empty: nothing is lost
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("")
    for name in ("work", "file"):
        with pytest.raises(FileExistsError, match="choose another place"):
            recommender.save(tmp_path / name)
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"


def test_where_writing_fails_nothing_is_left_and_the_old_one_stays(
    recommender, tmp_path, monkeypatch
):
    path = recommender.save(tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    recommender.add_users({"new": [1000]})
    for module, name in ((folder, "save_file"), (manifest, "sha256"), (folder, "_replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space left"):
                recommender.save(path)
            with pytest.raises(OSError, match="No space left"):
                recommender.save(tmp_path / "elsewhere")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert Recommender.load(path).num_users == 60


def test_a_model_of_somebody_elses_is_refused_when_saved(recommender, tmp_path):
    class Mine(GTC):
        pass

    recommender.model.__class__ = Mine
    with pytest.raises(ValueError, match=r"only models of gtc_pyg.models can be saved"):
        recommender.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def edit(path, **changes):
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))


def rewrite(path, name, make):
    """Exchanges a file and its checksum: only what is inside can tell."""
    make(path / name)
    digests = yaml.safe_load((path / "config.yaml").read_text())["sha256"]
    edit(path, sha256={**digests, name: manifest.sha256(path / name)})


def settings(path):
    return yaml.safe_load((path / "config.yaml").read_text())["model"]


def tensors(file, **changes):
    save_file({**load_file(file), **{k: torch.tensor(v) for k, v in changes.items()}}, file)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda p: edit(p, format_version=2, gtc_pyg="9.0"),
            ValueError,
            r"'format_version' is 2, .*load it with gtc-pyg 9.0",
        ),
        (
            lambda p: rewrite(p, "model.safetensors", lambda f: f.write_bytes(b"x" * 99)),
            ValueError,
            r"damaged, or not written by save",
        ),
        (
            lambda p: rewrite(p, "users.parquet", lambda f: f.write_bytes(b"PAR1")),
            ValueError,
            r"damaged, or not written by save",
        ),
        (
            lambda p: rewrite(
                p, "users.parquet", lambda f: pd.DataFrame({"user": ["a"]}).to_parquet(f)
            ),
            ValueError,
            r"damaged, .*1 user ids, but 60 embeddings",
        ),
        (lambda p: edit(p, model="os.system"), ValueError, r"unknown model 'os.system'"),
        (lambda p: edit(p, model="GraphRecommender"), ValueError, r"damaged"),
        (lambda p: edit(p, arguments={}), ValueError, r"damaged"),
        (
            lambda p: edit(p, arguments={"num_users": 10**12, "num_items": 40, "in_channels": {}}),
            ValueError,
            r"num_users is 1000000000000, but the weights have 60",
        ),
        (lambda p: edit(p, features=["smell"]), ValueError, r"damaged.*features.smell"),
        (lambda p: edit(p, edge_types=3), ValueError, r"damaged"),
        (
            lambda p: edit(p, arguments={**arguments(p), "num_steps": 3 * 10**8}),
            ValueError,
            r"num_steps is 300000000, more than anything in the weights",
        ),
        (
            lambda p: rewrite(p, "model.safetensors", lambda f: tensors(f, seen=[[0], [10**6]])),
            ValueError,
            r"damaged, .*seen has rows outside 0 to 39",
        ),
        (
            lambda p: rewrite(
                p, "model.safetensors", lambda f: tensors(f, **{"edges.0.index": [[60], [0]]})
            ),
            ValueError,
            r"damaged, .*rates has rows outside 0 to 59",
        ),
    ],
)
def test_a_damaged_foreign_or_newer_folder_is_named(recommender, tmp_path, spoil, error, message):
    path = recommender.save(tmp_path / "m")
    spoil(path)
    with pytest.raises(error, match=message):
        Recommender.load(path)


def test_a_missing_folder_is_named_and_what_an_interrupted_save_left(recommender, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m: no such folder$"):
        Recommender.load(tmp_path / "m")
    recommender.save(tmp_path / "m").rename(tmp_path / ".m.abc.old")
    with pytest.raises(FileNotFoundError, match=r"left .m.abc.old beside it: rename that"):
        Recommender.load(tmp_path / "m")


def test_what_else_lies_in_the_folder_is_not_lost(recommender, tmp_path):
    path = recommender.save(tmp_path / "m")
    (path / "notes.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"holds more than a saved recommender, \['notes.txt'\]"
    ):
        recommender.save(path)
    (path / "notes.txt").unlink()
    recommender.save(path)


def test_a_link_stays_a_link(recommender, tmp_path):
    recommender.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    recommender.add_users({"new": [1000]})
    recommender.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Recommender.load(tmp_path / "real").num_users == 61
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_everybody_who_may_read_one_file_may_read_all(recommender, tmp_path):
    path = recommender.save(tmp_path / "m")
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1


def test_attributes_set_after_the_model_was_made_are_saved(model, dataset, tmp_path):
    changed = copy.deepcopy(model)
    changed.content_strength = 3.0
    recommender = Recommender(changed, dataset)
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert loaded.model.content_strength == 3.0
    assert_frame_equal(loaded.fold_in([1000, 997]), recommender.fold_in([1000, 997]))


def test_a_column_of_several_types_is_named(recommender, tmp_path):
    recommender.table["price"] = [1.0, "n/a"] * 20
    with pytest.raises(ValueError, match=r"the items' column 'price' cannot be saved"):
        recommender.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_sizes_may_be_numpys(dataset, tmp_path):
    recommender = Recommender(LightGCN(np.int64(60), np.int64(40)), dataset)
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert_frame_equal(loaded.recommend(k=2), recommender.recommend(k=2))
