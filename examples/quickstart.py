"""LightGCN, FREEDOM and GTC on planted data: a table, and two pictures under outputs/quickstart/.

    python examples/quickstart.py

The data is made on the spot (no download): every user cares about one modality most, and about one
block of dimensions inside each modality. LightGCN sees interactions alone, FREEDOM content that is
the same for everyone, GTC content that is filtered for each user. The second picture asks what GTC
found: the share of each block in a user's scores, against what was planted (a bright diagonal is
right). Below the table stand AUCs, 0.5 being chance: of that share, and of the filter by itself,
that is of how much the content filtered for a user changes when a block is erased.
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
def block_relevance(
    model: GTC, dataset: PlantedPreferences
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What erasing a block (its mean instead) does, for each user and block of a modality.

    First [U, B]: the share of the variance of the user's scores that goes with the block. Second
    [U, B]: how much the content filtered for the user changes, which the user's gate alone decides.
    """
    inputs = GraphInputs.from_data(dataset[0])
    graph = model.csr_graph(inputs.edge_index_dict, inputs.edge_weight_dict)
    users, items = torch.arange(dataset.num_users).view(-1, 1), torch.arange(dataset.num_items)

    def answers(features: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
        user_emb, item_emb = model(features, graph)
        filtered = model.filter(features, graph)[name]
        return user_emb @ item_emb.t(), model.filter_for(name, filtered, users, items)

    relevance = {}
    for name, x in inputs.features.items():
        score, content = answers(inputs.features, name)
        centred = score - score.mean(dim=1, keepdim=True)
        in_scores, in_content = [], []
        for block in dataset.block_slices:
            erased = x.clone()
            erased[:, block] = x[:, block].mean(dim=0)
            other_score, other_content = answers({**inputs.features, name: erased}, name)
            shared = ((score - other_score) * centred).mean(dim=1)
            in_scores.append(shared / centred.pow(2).mean(dim=1))
            in_content.append((content - other_content).norm(dim=-1).mean(dim=1))
        relevance[name] = torch.stack(in_scores, dim=1), torch.stack(in_content, dim=1)
    return relevance


def block_auc(relevance: torch.Tensor, truth: torch.Tensor) -> float:
    """Chance that a user's planted block is more relevant than another entry; 0.5 is guessing."""
    planted = torch.zeros_like(relevance, dtype=torch.bool)
    planted[torch.arange(truth.numel()), truth] = True
    relevance = relevance / relevance.mean(dim=0)
    right, wrong = relevance[planted], relevance[~planted]
    return mannwhitneyu(right, wrong).statistic / (right.numel() * wrong.numel())


def plot_validation(results: dict[str, list[FitResult]], path: str) -> None:
    """Validation Recall@20 of each model over its epochs."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, (result, *_) in results.items():
        values = [row["val/Recall@20"] for row in result.history]
        (line,) = axis.plot(range(1, len(values) + 1), values, label=NAMES[name])
        axis.plot(result.best_epoch, max(values), "o", color=line.get_color())
    axis.set(xlabel="epoch", ylabel="validation Recall@20", title="Best epochs are marked")
    axis.legend()
    figure.savefig(path, dpi=150)


def plot_relevance(
    dataset: PlantedPreferences, found: dict[str, tuple[torch.Tensor, torch.Tensor]], path: str
) -> None:
    """Relevance in the scores (columns) for the users of each planted modality and block (rows)."""
    user, names, num_blocks = dataset[0]["user"], list(found), len(dataset.block_slices)
    labels = [f"{name} {block}" for name in names for block in range(num_blocks)]
    block = user.preferred_block.gather(1, user.preferred_modality.view(-1, 1)).view(-1)
    group = user.preferred_modality * num_blocks + block
    in_scores = torch.cat([found[name][0] for name in names], dim=1)
    mean = torch.stack([in_scores[group == row].mean(dim=0) for row in range(len(labels))])

    figure, axis = plt.subplots(figsize=(6.5, 5.5), layout="constrained")
    image = axis.imshow(mean, cmap="viridis", vmin=0)
    figure.colorbar(image, label="share of the variance of a user's scores")
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="block of content", ylabel="what the users care about (planted)")
    axis.set_title("Relevance that GTC found, for each group of users")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    args = parse_args(__doc__)
    dataset = PlantedPreferences(num_users=600, num_items=300, seed=0, transform=ItemKNNGraph(k=10))
    results = run("quickstart", dataset, SETTINGS, args)
    plot_validation(results, f"{args.logs}/quickstart/validation_curves.png")
    if "gtc" in results:
        found = block_relevance(results["gtc"][0].model, dataset)
        truth = dataset[0]["user"].preferred_block
        print()
        for m, (name, (in_scores, in_content)) in enumerate(found.items()):
            scores, content = (block_auc(x, truth[:, m]) for x in (in_scores, in_content))
            print(
                f"planted {name} block found: AUC {scores:.2f} in scores, {content:.2f} in filter"
            )
        plot_relevance(dataset, found, f"{args.logs}/quickstart/user_relevance.png")
    print(f"\nPictures: {args.logs}/quickstart/validation_curves.png and user_relevance.png")
