import copy
import datetime
import json
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

from gtc_pyg.models import GTC, LightGCN
from gtc_pyg.models.registry import MODELS
from gtc_pyg.recommend import Recommender, exchange, folder, manifest
from gtc_pyg.recommend.tables import write_table
from tests.recommend import folder_attacks


@pytest.fixture(scope="module")
def saved(model, dataset, tmp_path_factory):
    return Recommender(model, dataset).save(tmp_path_factory.mktemp("saved") / "m")


def test_what_was_saved_answers_the_same(recommender, tmp_path):
    path = recommender.save(tmp_path / "mine")
    assert sorted(p.name for p in path.iterdir()) == sorted(
        ["SHA256SUMS", "config.yaml", "model.safetensors", "users.arrow", "items.arrow"]
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
    assert_frame_equal(loaded.fold_in([1000, 997]), recommender.fold_in([1000, 997]))


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


def test_saved_recommender_is_replaced_and_anything_else_is_not(recommender, tmp_path):
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


def test_failed_writing_leaves_nothing_and_the_old_one_stays(recommender, tmp_path, monkeypatch):
    path = recommender.save(tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    recommender.add_users({"new": [1000]})
    for module, name in ((folder, "save_file"), (manifest, "write_sums"), (exchange, "_put")):
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
    """Changes the settings and their checksum: only what is inside can tell."""
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    manifest.write_sums(path)


def rewrite(path, name, make):
    make(path / name)
    manifest.write_sums(path)


def settings_in(path, part=None, **changes):
    """Changes settings of the model, or of a part of it."""
    made = yaml.safe_load((path / "config.yaml").read_text())["model"]
    (made if part is None else made[part]).update(changes)
    edit(path, model=made)


def tensors(path, **changes):
    """Exchanges tensors, by what is made of the one that is there; without those of ``None``."""
    file = path / "model.safetensors"
    found = load_file(file)
    made = {name: make and make(found.get(name)) for name, make in changes.items()}
    kept = {name: x.contiguous() for name, x in {**found, **made}.items() if x is not None}
    rewrite(path, "model.safetensors", lambda place: save_file(kept, place))


def spoilt(x, value, *place):
    x = x.clone()
    x[place] = value
    return x


INSIDE = [
    (lambda p: edit(p, format_version=3, gtc_pyg="9.0"), r"'format_version' is 3, .*gtc-pyg 9.0"),
    (lambda p: rewrite(p, "model.safetensors", lambda f: f.write_bytes(b"x" * 99)), r"header"),
    (lambda p: rewrite(p, "users.arrow", lambda f: f.write_bytes(b"ARROW1")), r"no table of"),
    (
        lambda p: rewrite(
            p, "users.arrow", lambda f: write_table(pd.DataFrame({"user": ["a"]}), f)
        ),
        r"users.arrow has 1 rows, but there are 60",
    ),
    (
        lambda p: settings_in(p, **{"class": "os.system"}),
        r"must be of the class LightGCN .*'os.system'",
    ),
    (lambda p: settings_in(p, **{"class": "GraphRecommender"}), r"damaged"),
    (lambda p: edit(p, model={}), r"damaged"),
    (
        lambda p: settings_in(p, num_users=61),
        r"user_emb.weight is float32 \[60, 16\], .*make .*\[61, 16",
    ),
    (lambda p: settings_in(p, num_users=10**12), r"num_users is 1000000000000, more than anything"),
    (lambda p: settings_in(p, "content_filter", hidden_channels=16000), r"the settings make"),
    (
        lambda p: settings_in(p, "content_filter", num_steps=599),
        r"alpha_bar is float64 \[601\], the settings make",
    ),
    (
        lambda p: settings_in(p, heads=[{} for _ in range(17)]),
        r"the settings have more than 16 parts",
    ),
    (lambda p: settings_in(p, fusion=3), r"'fusion' must be a module or None \(got int\)"),
    (lambda p: settings_in(p, num_layers=2.5), r"'num_layers' must be a whole number \(got 2.5\)"),
    (
        lambda p: tensors(p, **{"model.heads.0.added_degree": lambda x: -x}),
        r"a SpectralHead was not fitted",
    ),
    (lambda p: settings_in(p, num_layers=65), r"num_layers is 65, more than 64"),
    (
        lambda p: settings_in(p, "content_filter", num_sampling_steps=1001),
        r"num_sampling_steps is 1001, more than 1000",
    ),
    (lambda p: settings_in(p, edge_dropout=float("nan")), r"edge_dropout is nan"),
    (
        lambda p: settings_in(p, edge_dropout=[[[[[[[[[1]]]]]]]]]),
        r"more than 1000 settings, or 8 in",
    ),
    (
        lambda p: settings_in(p, "content_filter", condition=datetime.date(2020, 1, 1)),
        r"condition is of the type date",
    ),
    (lambda p: settings_in(p, in_channels={"image": 31, "text": 32}), r"'in_channels' is"),
    (
        lambda p: edit(p, features=["smell"]),
        r"model reads \['image', .* there are features \['smell",
    ),
    (lambda p: edit(p, edge_types=3), r"damaged"),
    (lambda p: edit(p, edge_types=[]), r"edges.0.index is missing, or nothing that is read"),
    (lambda p: tensors(p, more=lambda _: torch.zeros(1)), r"more is missing, or nothing that is"),
    (lambda p: tensors(p, seen=None), r"seen is missing"),
    (
        lambda p: tensors(p, seen=lambda x: x.t()),
        r"seen is int64 \[\d+, 2\], expected int64 \[2, \*",
    ),
    (lambda p: tensors(p, seen=lambda x: x.int()), r"damaged"),
    (lambda p: tensors(p, seen=lambda x: x.float()), r"seen is float32"),
    (lambda p: tensors(p, seen=lambda x: spoilt(x, 60, 0, 0)), r"seen has rows outside 0 to 59"),
    (lambda p: tensors(p, seen=lambda x: spoilt(x, -1, 1, 0)), r"seen has rows outside 0 to 39"),
    (lambda p: tensors(p, user_emb=lambda x: x[:, 1:]), r"user_emb is \[60, .* no pair of tables"),
    (lambda p: tensors(p, user_emb=lambda x: x[:59]), r"the model is of 60 users and 40 items"),
    (
        lambda p: tensors(p, user_emb=lambda x: spoilt(x, torch.nan, 3, 1)),
        r"user_emb is not finite",
    ),
    (
        lambda p: tensors(p, **{"model.item_emb.weight": lambda x: spoilt(x, -torch.inf, 0, 0)}),
        r"model.item_emb.weight is not finite",
    ),
    (
        lambda p: tensors(p, **{"features.image": lambda x: spoilt(x, torch.inf, 0, 0)}),
        r"features.image is not finite",
    ),
    (lambda p: tensors(p, **{"features.image": lambda x: x[:, 1:]}), r"features.image is .*, 31\]"),
    (lambda p: tensors(p, **{"features.image": lambda x: x[1:]}), r"features.image is .*\[39"),
    (
        lambda p: tensors(p, **{"edges.0.index": lambda x: spoilt(x, 60, 0, 0)}),
        r"rates has rows outside 0 to 59",
    ),
    (
        lambda p: tensors(p, **{"edges.0.index": lambda x: x[:, 1:]}),
        r"rates and rev_rates are not the same interactions",
    ),
    (
        lambda p: tensors(
            p,
            **{
                "edges.0.index": lambda _: torch.tensor([[3, 3], [7, 7]]),
                "edges.1.index": lambda _: torch.tensor([[7, 7], [3, 3]]),
            },
        ),
        r"rates holds an interaction twice",
    ),
    (lambda p: tensors(p, **{"edges.2.weight": lambda x: x[1:]}), r"edges.2.weight is float32"),
]


@pytest.mark.parametrize(("spoil", "message"), INSIDE, ids=range(len(INSIDE)))
def test_what_does_not_fit_together_is_named(recommender, tmp_path, spoil, message):
    path = recommender.save(tmp_path / "m")
    spoil(path)
    with pytest.raises(ValueError, match=rf"^{path}.*{message}"):
        Recommender.load(path)


@pytest.mark.parametrize("name", [*manifest.FILES, manifest.SUMS])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_any_file_is_found(saved, name, place, bit):
    content = bytearray((saved / name).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(content)
    try:
        with pytest.raises(ValueError, match=rf"^{saved}.*({name}|checksum)"):
            Recommender.load(saved)
    finally:
        (saved / name).write_bytes(whole)


def test_one_number_changed_by_hand_is_found(saved):
    text = (saved / "config.yaml").read_text()
    (saved / "config.yaml").write_text(text.replace("strength: 0.2", "strength: 0.3"))
    try:
        with pytest.raises(
            ValueError, match=r"config.yaml: the checksum is not that of SHA256SUMS"
        ):
            Recommender.load(saved)
    finally:
        (saved / "config.yaml").write_text(text)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    command = [sys.executable, "-m", "tests.recommend.folder_attacks"]
    command.append(str(tmp_path_factory.mktemp("attacks")))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
@pytest.mark.parametrize("name", folder_attacks.ATTACKS)
def test_a_folder_costs_no_more_than_it_claims(attacked, name):
    found, message = attacked[name], folder_attacks.ATTACKS[name][1]
    assert found["error"].startswith("ValueError: " if message else ""), found
    assert message in found["error"] and bool(message) == bool(found["error"])
    assert found["seconds"] < 5 and found["megabytes"] < 256


def test_what_could_not_be_loaded_is_not_saved(recommender, tmp_path):
    whole = recommender.user_emb, recommender.features
    for change, name in (
        ({"user_emb": spoilt(whole[0], torch.nan, 5, 2)}, "user_emb"),
        ({"user_emb": whole[0][:, 1:]}, "user_emb"),
        ({"features": {**whole[1], "image": whole[1]["image"][1:]}}, "features.image"),
        ({"features": {**whole[1], "image": spoilt(whole[1]["image"], -torch.inf, 0)}}, "features"),
    ):
        recommender._change(user_emb=whole[0], features=whole[1])
        recommender._change(**change)
        with pytest.raises(ValueError, match=f"^{name}.* is "):
            recommender.save(tmp_path / "m")
    recommender._change(user_emb=whole[0], features=whole[1])
    recommender.model.num_layers = 10**6
    with pytest.raises(ValueError, match="num_layers is 1000000, more than 64"):
        recommender.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_content_that_is_absent_need_not_be_finite(recommender, tmp_path):
    has = torch.arange(40) != 5
    x = recommender.features["image"].clone()
    x[5] = torch.nan
    recommender.features = {**recommender.features, "image": x, "has_image": has}
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert torch.equal(loaded.features["has_image"], has)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.double])
def test_weights_keep_their_type(recommender, tmp_path, kind):
    recommender.model.to(kind)
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert loaded.model.user_emb.weight.dtype == kind
    assert torch.equal(loaded.model.user_emb.weight, recommender.model.user_emb.weight)


def test_what_a_killed_save_moved_away_is_loaded(recommender, tmp_path):
    recommender.save(tmp_path / "m").rename(tmp_path / ".m.abcdefgh.old")
    assert Recommender.load(tmp_path / "m").num_users == 60
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_who_loads_while_another_saves_gets_the_old_or_the_new(recommender, tmp_path):
    more = copy.deepcopy(recommender)
    more.add_users({"new": [1000]})
    recommender.save(tmp_path / "m")
    loads, errors = iter(range(15)), []

    def saving():
        try:
            while next(loads, None) is not None:
                more.save(tmp_path / "m")
                recommender.save(tmp_path / "m")
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=saving)
    thread.start()
    while thread.is_alive():
        found = Recommender.load(tmp_path / "m")
        assert found.num_users in (60, 61) and len(found.users) == found.user_emb.size(0)
    assert errors == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m: no such folder$"):
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
    changed.content_filter.strength = 3.0
    recommender = Recommender(changed, dataset)
    loaded = Recommender.load(recommender.save(tmp_path / "m"))
    assert loaded.model.content_filter.strength == 3.0
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
