r"""The code in the pages runs, each page from top to bottom."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gtc_pyg import lightning, loader, models, nn, transforms
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.loader import GraphInputs

ROOT = Path(__file__).parents[1]
ELSEWHERE = "interactions.csv"  # what reads it is run by tests/examples/test_own_data.py


def code_of(page: Path) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block for block in found if ELSEWHERE not in block]


def pages() -> list[Path]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in found if code_of(page)]


def planted():
    return PlantedPreferences(300, 260, mean_degree=8.0, transform=transforms.ItemKNNGraph(k=5))


def growth():
    pytest.importorskip("torch_sparse", reason="torch-sparse is not installed: it samples")
    data = planted()[0]
    np.save("image.npy", data["item"].x_image.numpy())
    return {"data": data, "SubgraphLoader": loader.SubgraphLoader}


def layers():
    edge_index = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 2]])
    given = {"users": torch.randn(3, 8), "items": torch.randn(4, 8), "edge_index": edge_index}
    given |= {"x_t": torch.randn(4, 16), "t": torch.full((4,), 50), "item": torch.tensor([0, 2])}
    given |= {"user": torch.tensor([1, 2]), "schedule": nn.NoiseSchedule()}
    return given | {"ConditionalDenoiser": nn.ConditionalDenoiser}


def missing_modality():
    dataset = planted()
    edge_index, x = dataset[0]["user", "rates", "item"].edge_index, dataset.features
    names = {"text": torch.randn(260, 384), "audio": x["image"], "has_text": torch.rand(260) > 0.3}
    return {**names, "edge_index": edge_index, "num_users": 300}


def several_processes():
    dataset = planted()

    def fit(model, dataset):
        return lightning.fit(model, dataset, epochs=1, out="outputs", progress=False)

    names = {"TikTok": lambda root, pre_transform: dataset, "fit": fit}
    return names | {"ItemKNNGraph": transforms.ItemKNNGraph, "model": models.LightGCN(300, 260)}


def new_users():
    dataset = planted()
    inputs = GraphInputs.from_data(dataset[0])
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    return {**vars(inputs), "model": models.GTC(300, 260, widths).eval(), "torch": torch}


def cold_items():
    widths, given = {"text": 384, "image": 64}, new_users()
    features = {name: torch.randn(260, width) for name, width in widths.items()}
    model = models.GTC(300, 260, widths).eval()
    graph = given["edge_index_dict"], given["edge_weight_dict"]
    with torch.no_grad():
        user_emb, item_emb = model(features, *graph)
    given |= {"model": model, "features": features, "user_emb": user_emb, "item_emb": item_emb}
    return given | {name: x[:3] for name, x in features.items()}


# what a fragment takes as given
GIVEN = {
    f"{make.__name__}.md": make
    for make in (growth, layers, missing_modality, several_processes, new_users, cold_items)
}
GIVEN["explanations.md"] = new_users


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (tmp_path / "outputs").mkdir()
    names = {"__name__": "page", **GIVEN.get(page.name, dict)()}
    for number, block in enumerate(code_of(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
