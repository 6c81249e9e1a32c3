import pytest

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.transforms import ItemKNNGraph


@pytest.fixture(scope="session")
def dataset() -> PlantedPreferences:
    return PlantedPreferences(60, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))
