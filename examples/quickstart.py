"""LightGCN, FREEDOM and GTC on planted data: a table, and two pictures under outputs/quickstart/.

    python examples/quickstart.py

The data is made on the spot (no download): every user cares about one modality most, and about one
block of dimensions inside each modality. LightGCN sees interactions alone, FREEDOM content that is
the same for everyone, GTC content that is filtered for each user. The second picture asks what
GTC's filter found: how much the content filtered for a user changes when a block is erased. Where
it found the planted blocks the diagonal is bright and the AUC near 1; an AUC of 0.5 is chance.
"""

import matplotlib.pyplot as plt
import torch
from scipy.stats import mannwhitneyu

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import NAMES, Settings, parse_args, run
from gtc_pyg.lightning import FitResult, GraphInputs
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

SETTINGS = {
    "lightgcn": Settings(lr=0.01, epochs=60),
    "freedom": Settings(lr=0.01, epochs=60, model={"edge_dropout": 0.0}),
    "gtc": Settings(
        lr=0.01,
        epochs=60,
        model={
            "score_scale": 5.0,
            "content_strength": 0.2,
            "start_step": 300,
            "diffusion_weight": 0.01,
            "filter_weight": 1.0,
        },
    ),
}


@torch.no_grad()
def block_relevance(model: GTC, dataset: PlantedPreferences) -> dict[str, torch.Tensor]:
    """Mean change of the content filtered for each user as a block turns into its mean, [U, B]."""
    inputs = GraphInputs.from_data(dataset[0])
    graph = model.csr_graph(inputs.edge_index_dict, inputs.edge_weight_dict)
    users, items = torch.arange(dataset.num_users).view(-1, 1), torch.arange(dataset.num_items)
    relevance = {}
    for name, x in inputs.features.items():

        def filtered_for_users(content: torch.Tensor, name: str = name) -> torch.Tensor:
            filtered = model.filter({**inputs.features, name: content}, graph)
            return model.filter_for(name, filtered[name], users, items)

        before, columns = filtered_for_users(x), []
        for block in dataset.block_slices:
            erased = x.clone()
            erased[:, block] = x[:, block].mean(dim=0)
            columns.append((filtered_for_users(erased) - before).norm(dim=-1).mean(dim=1))
        relevance[name] = torch.stack(columns, dim=1)
    return relevance


def block_auc(relevance: torch.Tensor, truth: torch.Tensor) -> float:
    """Chance that a user's planted block is more relevant than another entry; 0.5 is guessing."""
    planted = torch.zeros_like(relevance, dtype=torch.bool)
    planted[torch.arange(truth.numel()), truth] = True
    right, wrong = relevance[planted], relevance[~planted]
    return mannwhitneyu(right, wrong).statistic / (right.numel() * wrong.numel())


def plot_validation(results: dict[str, list[FitResult]], path: str) -> None:
    """Validation Recall@20 of each model over its epochs."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, (result,) in results.items():
        values = [row["val/Recall@20"] for row in result.history]
        (line,) = axis.plot(range(1, len(values) + 1), values, label=NAMES[name])
        axis.plot(result.best_epoch, max(values), "o", color=line.get_color())
    axis.set(xlabel="epoch", ylabel="validation Recall@20", title="Best epochs are marked")
    axis.legend()
    figure.savefig(path, dpi=150)


def plot_relevance(dataset: PlantedPreferences, found: dict[str, torch.Tensor], path: str) -> None:
    """Mean relevance of each block (columns) for the users who planted-prefer it (rows)."""
    truth = dataset[0]["user"].preferred_block
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.6), layout="constrained")
    for m, (axis, (name, relevance)) in enumerate(zip(axes, found.items(), strict=True)):
        relevance = relevance / relevance.mean(dim=0)
        blocks = range(relevance.size(1))
        mean = torch.stack([relevance[truth[:, m] == block].mean(dim=0) for block in blocks])
        image = axis.imshow(mean, cmap="viridis")
        figure.colorbar(image, ax=axis, label="relevance, mean of a column = 1")
        auc = block_auc(relevance, truth[:, m])
        title = f"{name}: AUC {auc:.2f}"
        axis.set(xlabel="erased block", ylabel="planted block of the users", title=title)
        print(f"relevance of {name} blocks against the planted truth: AUC {auc:.3f}")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    args = parse_args(__doc__, root=None)
    dataset = PlantedPreferences(num_users=600, num_items=300, seed=0, transform=ItemKNNGraph(k=10))
    results = run("quickstart", dataset, SETTINGS, args)
    plot_validation(results, f"{args.logs}/quickstart/validation_curves.png")
    if "gtc" in results:
        found = block_relevance(results["gtc"][0].model, dataset)
        plot_relevance(dataset, found, f"{args.logs}/quickstart/user_relevance.png")
    print(f"\nPictures and logs: {args.logs}/quickstart/")
