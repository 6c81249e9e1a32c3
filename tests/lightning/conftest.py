import pytest
import torch

from gtc_pyg.lightning import FitResult, GraphInputs, fit
from gtc_pyg.models import GTC, GraphRecommender


@pytest.fixture(scope="session")
def make_gtc():
    def make(dataset, **settings) -> GTC:
        torch.manual_seed(0)
        widths = {name: x.size(1) for name, x in dataset.features.items()}
        return GTC(dataset.num_users, dataset.num_items, widths, hidden_channels=16, **settings)

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
