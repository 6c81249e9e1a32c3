import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GTC, ContentFilter, ItemBias, SpectralHead
from gtc_pyg.nn import BPR
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph


class Named(PlantedPreferences):
    """Planted data with ids and a table of its owner's."""

    @property
    def user_ids(self):
        return pd.Index([f"u{row:02d}" for row in range(self.num_users)])

    @property
    def item_ids(self):
        return pd.Index([1000 - 3 * row for row in range(self.num_items)])

    @property
    def items(self):
        return pd.DataFrame(
            {
                "title": [f"Item {row} ü" for row in range(self.num_items)],
                "kind": [row % 3 for row in range(self.num_items)],
            }
        )


@pytest.fixture(scope="session")
def dataset() -> Named:
    return Named(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


@pytest.fixture(scope="session")
def model(dataset) -> GTC:
    torch.manual_seed(0)
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    heads = [SpectralHead(strength=0.2), ItemBias()]
    content_filter = ContentFilter(widths, channels=16, strength=0.05)
    model = GTC(60, 40, widths, content_filter, ranking=BPR(), heads=heads)
    torch.nn.init.normal_(model.item_bias.weight, std=0.1)
    inputs = GraphInputs.from_data(dataset[0])
    model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict, spectral_start=False)
    return model


@pytest.fixture
def recommender(model, dataset) -> Recommender:
    return Recommender(model, dataset)
