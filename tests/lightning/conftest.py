import pytest
import torch

from gtc_pyg.lightning import FitResult, GraphInputs, fit
from gtc_pyg.models import GTC, ContentFilter, GraphRecommender, ItemBias, SpectralHead
from gtc_pyg.models.registry import MODELS, build_model
from gtc_pyg.nn import BPR, SampledSoftmax


@pytest.fixture(scope="session")
def make_gtc():
    def make(dataset, **settings) -> GTC:
        torch.manual_seed(0)
        widths = {name: x.size(1) for name, x in dataset.features.items()}
        plain = {"ranking": BPR(), "heads": [], "edge_dropout": 0.0}
        content_filter = ContentFilter(widths, channels=16, strength=0.05)
        sizes = dataset.num_users, dataset.num_items, widths
        return GTC(*sizes, content_filter, **{**plain, **settings})

    return make


@pytest.fixture(scope="module")
def make_recommender(dataset, make_gtc):
    r"""Every model by name, GTC also with all its heads."""

    def make(name) -> GraphRecommender:
        torch.manual_seed(0)
        widths = {modality: x.size(1) for modality, x in dataset.features.items()}
        if name.startswith("gtc"):
            heads = {"heads": [SpectralHead(8), ItemBias()], "ranking": SampledSoftmax(8)}
            model = make_gtc(dataset, **(heads if "heads" in name else {}))
        else:
            sizes = {"num_users": dataset.num_users, "num_items": dataset.num_items}
            model = build_model({"class": MODELS[name].__name__}, **sizes, in_channels=widths)
        inputs = GraphInputs.from_data(dataset[0])
        model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict, spectral_start=False)
        return model

    return make


@pytest.fixture(scope="session")
def train():
    def fitted(model: GraphRecommender, dataset, out, **options) -> FitResult:
        settings = {"lr": 0.01, "epochs": 4, "batch_size": 64, "progress": False, "out": out}
        settings |= {"weight_averaging": 0.0, "spectral_start": False}
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
