import pytest
import torch

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import MODELS
from gtc_pyg.lightning import FitResult, GraphInputs, fit
from gtc_pyg.models import GTC, GraphRecommender
from gtc_pyg.transforms import ItemKNNGraph


@pytest.fixture(scope="session")
def dataset() -> PlantedPreferences:
    return PlantedPreferences(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


@pytest.fixture(scope="session")
def make_gtc():
    def make(dataset, **settings) -> GTC:
        torch.manual_seed(0)
        widths = {name: x.size(1) for name, x in dataset.features.items()}
        return GTC(dataset.num_users, dataset.num_items, widths, hidden_channels=16, **settings)

    return make


@pytest.fixture(scope="session")
def make_recommender(dataset, make_gtc):
    r"""Every model by name, GTC also with all its heads."""

    def make(name) -> GraphRecommender:
        torch.manual_seed(0)
        widths = {modality: x.size(1) for modality, x in dataset.features.items()}
        if name.startswith("gtc"):
            heads = {"low_pass_strength": 1.0, "low_pass_channels": 8, "item_bias": True}
            model = make_gtc(dataset, **(heads | {"num_negatives": 8} if "heads" in name else {}))
            inputs = GraphInputs.from_data(dataset[0])
            model.fit_low_pass(inputs.edge_index_dict, inputs.edge_weight_dict)
            return model
        content = [] if name == "lightgcn" else [widths]
        return MODELS[name](dataset.num_users, dataset.num_items, *content, 16)

    return make


@pytest.fixture(scope="session")
def train():
    def fitted(model: GraphRecommender, dataset, out, **options) -> FitResult:
        settings = {"lr": 0.01, "epochs": 4, "batch_size": 64, "progress": False, "out": out}
        return fit(model, dataset, **(settings | options))

    return fitted


@pytest.fixture(scope="session")
def embed():
    def embedded(model, dataset):
        inputs = GraphInputs.from_data(dataset[0])
        with torch.no_grad():
            return model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)

    return embedded


@pytest.fixture(scope="session")
def labels():
    def of(dataset, split):
        return dataset.view(split)["user", "rates", "item"].edge_label_index

    return of


@pytest.fixture(scope="session")
def sampling():
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    return [4, 3, 3]
