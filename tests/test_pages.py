r"""The code in the pages runs, each page from top to bottom."""

import inspect
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg import datasets, functional, lightning, loader, models, nn, recommend, transforms
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
    given = several_processes()
    return {**given, "data": data, "SubgraphLoader": loader.SubgraphLoader}


def missing_modality():
    dataset = planted()
    edge_index, x = dataset[0]["user", "rates", "item"].edge_index, dataset.features
    names = {"text": torch.randn(260, 384), "audio": x["image"], "has_text": torch.rand(260) > 0.3}
    return {**names, "edge_index": edge_index, "num_users": 300}


def several_processes():
    dataset = planted()

    def fit(model, dataset, **options):
        return lightning.fit(model, dataset, epochs=1, out="outputs", progress=False, **options)

    names = {"TikTok": lambda root, pre_transform: dataset, "fit": fit, "dataset": dataset}
    return names | {"ItemKNNGraph": transforms.ItemKNNGraph, "model": models.LightGCN(300, 260)}


def reliability():
    fit = partial(lightning.fit, epochs=1, progress=False)
    return {"fit": fit, "model": models.LightGCN(300, 260), "dataset": planted()}


def new_users():
    dataset = planted()
    inputs = GraphInputs.from_data(dataset[0])
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    model = models.GTC(300, 260, widths).eval()
    model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict)
    return {**vars(inputs), "model": model, "torch": torch}


def cold_items():
    widths, given = {"text": 384, "image": 64}, new_users()
    features = {name: torch.randn(260, width) for name, width in widths.items()}
    model = models.GTC(300, 260, widths).eval()
    graph = given["edge_index_dict"], given["edge_weight_dict"]
    model.prepare(*graph)
    with torch.no_grad():
        user_emb, item_emb = model(features, *graph)
    given |= {"model": model, "features": features, "user_emb": user_emb, "item_emb": item_emb}
    return given | {name: x[:3] for name, x in features.items()}


def raw_content():
    """Twelve users, eight items with titles; six name a picture, and one of these is not there."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    items, users = [f"i{n}" for n in range(8)], np.repeat(np.arange(12), 5)
    paths = [f"{item}.png" if n < 6 else "" for n, item in enumerate(items)]
    for n, path in enumerate(paths[:5]):
        image.new("RGB", (9, 9), (40 * n, 0, 90)).save(path)
    titles = [f"title number {n}" for n in range(8)]
    table = pd.DataFrame({"item": items, "title": titles, "picture": paths})
    table.to_csv("items.csv", index=False)
    log = pd.DataFrame({"user": users, "item": np.resize(items, len(users))})
    log.to_csv("log.csv", index=False)


def own_data():
    table = pd.DataFrame({"user": np.arange(60) // 5, "item": np.arange(60) % 7, "rating": 4})
    content = pd.DataFrame(np.eye(7), index=range(7))
    dataset = datasets.from_frames(table, features={"text": content})
    model = models.LightGCN(dataset.num_users, dataset.num_items)
    return {"interactions": table, "recommender": recommend.Recommender(model, dataset)}


def from_mmrec():
    rng, raw = np.random.default_rng(0), Path("data/mine/raw")
    raw.mkdir(parents=True)
    rows = ["userID\titemID\tx_label"]
    for user in range(30):
        labels = [0] * 6 + [1, 2]
        rows += [f"{user}\t{i}\t{k}" for i, k in zip(rng.permutation(20), labels, strict=False)]
    (raw / "mine.inter").write_text("\n".join(rows))
    for name in ("image", "text"):
        np.save(raw / f"{name}_feat.npy", rng.standard_normal((20, 16)))


# what a fragment takes as given
GIVEN = {
    f"{make.__name__}.md": make
    for make in (
        growth,
        missing_modality,
        several_processes,
        reliability,
        new_users,
        cold_items,
        raw_content,
        own_data,
        from_mmrec,
    )
}
GIVEN["explanations.md"] = new_users


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (tmp_path / "outputs").mkdir()
    names = {"__name__": "page", **(GIVEN.get(page.name, dict)() or {})}
    for number, block in enumerate(code_of(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


# what calls give or hold, which nobody makes
GIVEN_BACK = {"GraphInputs", "InteractionBatch", "FilteredContent", "Lists", "Explanation"}
GIVEN_BACK |= {"AffineStep", "Condition", "RankingLoss", "Head"}  # nor bases
GIVEN_BACK |= {"ItemEmbedder", "UserEmbedder", "check_place"}
LOSSES = ["contrast", "sampled_softmax", "total_correlation"]


def doctested(thing) -> bool:
    parts = [thing, *vars(thing).values()] if inspect.isclass(thing) else [thing]
    return any(">>>" in (getattr(part, "__doc__", None) or "") for part in parts)


@pytest.mark.parametrize("part", [nn, models, transforms, loader, recommend, functional])
def test_each_layer_loss_and_tool_has_an_example_that_runs(part):
    names = LOSSES if part is functional else sorted(set(part.__all__) - GIVEN_BACK)
    shown = "\n".join(block for page in pages() for block in code_of(page))
    lacking = [
        name
        for name in names
        if not doctested(getattr(part, name)) and not re.search(rf"\b{name}\(", shown)
    ]
    assert lacking == []
