"""Content that says nothing, asked of the service: lists and reasons are numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient

from gtc_pyg.datasets import from_frames
from gtc_pyg.models import GTC, ContentFilter
from gtc_pyg.recommend import Recommender
from gtc_pyg.serve.api import make_app

IDS = [f"i{row}" for row in range(16)]
CONTENT = {
    "constant": pd.DataFrame(np.full((16, 3), 0.7), index=IDS),
    "one item": pd.DataFrame(np.ones((1, 3)), index=IDS[3:4]),
}


@pytest.mark.filterwarnings("ignore:features")
@pytest.mark.parametrize("name", CONTENT)
def test_lists_and_reasons_are_numbers(name: str) -> None:
    rng = np.random.default_rng(0)
    pairs = {"user": [f"u{row % 14}" for row in range(120)], "item": rng.choice(IDS, 120)}
    dataset = from_frames(pd.DataFrame(pairs), features={"image": CONTENT[name]})
    torch.manual_seed(0)
    content_filter = ContentFilter({"image": 3}, channels=8, incomplete=dataset.incomplete)
    sizes = dataset.num_users, dataset.num_items, {"image": 3}
    model = GTC(*sizes, content_filter, num_item_layers=0)
    client = TestClient(make_app(Recommender(model, dataset)), base_url="http://127.0.0.1:8000")
    listed = client.post("/api/recommendations", json={"user": "u1", "k": 3})
    assert listed.status_code == 200, listed.text
    items = [entry["id"] for entry in listed.json()]
    reasons = client.post("/api/explanations", json={"user": "u1", "items": items})
    assert reasons.status_code == 200, reasons.text
    assert len(items) == 3 and "NaN" not in listed.text + reasons.text
