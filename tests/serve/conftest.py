import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import from_frames
from gtc_pyg.models import GTC, ContentFilter
from gtc_pyg.recommend import Recommender

LONG_USER = "ü/%" * 4000  # 16,000 bytes, 48,000 in an address
LONG_ITEM = "x" * 5000


@pytest.fixture(scope="session")
def recommender() -> Recommender:
    rng = np.random.default_rng(0)
    users = np.array([LONG_USER, *(f"u{row}" for row in range(1, 20))])
    items = np.array([LONG_ITEM, *(f"i{row}" for row in range(1, 30))])
    pairs = {"user": users[rng.integers(20, size=300)], "item": items[rng.integers(30, size=300)]}
    table = pd.DataFrame({"item": items, "title": [f"Title {row}" for row in range(30)]})
    dataset = from_frames(pd.DataFrame(pairs), table, {"image": rng.random((30, 8))})
    torch.manual_seed(0)
    content_filter = ContentFilter({"image": 8}, channels=16)
    return Recommender(GTC(20, 30, {"image": 8}, content_filter, num_item_layers=0), dataset)


@pytest.fixture(scope="session")
def folder(recommender, tmp_path_factory):
    return recommender.save(tmp_path_factory.mktemp("serve") / "saved")
