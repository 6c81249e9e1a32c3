import pytest

from gtc_pyg.experiment import (
    DEFAULTS,
    Settings,
    build_model,
    default_graph,
    train,
)
from gtc_pyg.experiment import settings as settings_module
from gtc_pyg.models.registry import MODELS


def test_models_are_built_by_name_for_the_size_of_the_data(dataset):
    for name, kind in MODELS.items():
        model = build_model(name, dataset)
        assert isinstance(model, kind)
        assert (model.num_users, model.num_items) == (60, 40)
    assert build_model("gtc", dataset, ["text"]).modalities == ("text",)
    assert build_model("lightgcn", dataset).modalities == ()
    with pytest.raises(ValueError, match="unknown model 'mf', expected one of lightgcn"):
        build_model("mf", dataset)


def test_a_model_is_trained_as_its_settings_say(dataset, monkeypatch):
    given = {}

    def fit(model, dataset, **options):
        given.update(options, model=model)

    monkeypatch.setattr(settings_module, "fit", fit)
    settings = Settings(
        lr=0.5,
        epochs=3,
        patience=4,
        batch_size=7,
        modalities=["text"],
        model={"num_layers": 5},
        spectral_start=False,
        weight_averaging=0.9,
    )
    train("gtc", dataset, settings, seed=6, epochs=2, progress=False)
    model = given.pop("model")
    assert model.num_layers == 5 and model.modalities == ("text",)
    fields = {"lr": 0.5, "patience": 4, "batch_size": 7, "modalities": ["text"]}
    more = {
        "spectral_start": False,
        "weight_averaging": 0.9,
        "seed": 6,
        "epochs": 2,
        "progress": False,
    }
    assert given == fields | more


@pytest.mark.parametrize(
    ("modalities", "weights"),
    [
        (["image", "text"], {"image": 0.1, "text": 0.9}),
        (["audio", "text", "video"], {"audio": 0.05, "text": 0.9, "video": 0.05}),
        (["text"], None),
        (["image", "video"], None),
        ([], None),
    ],
)
def test_default_graph_weighs_text_most_beside_other_content(modalities, weights):
    graph = default_graph(modalities)
    assert (graph.k, graph.weights) == (10, weights)


def test_the_default_preset_has_settings_for_every_model():
    assert set(DEFAULTS) == set(MODELS)
