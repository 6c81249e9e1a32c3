"""GTC in a plain PyTorch loop, with the core packages alone: no Lightning, no pandas.

    python examples/plain_loop.py                      # planted data, made on the spot
    python examples/plain_loop.py --root data/tiktok   # TikTok

Early stop on validation Recall@20; the weights of the best epoch are ranked once on test.
"""

import argparse
import copy

import torch
from tqdm import tqdm

from gtc_pyg.datasets import PlantedPreferences, TikTok
from gtc_pyg.evaluation import evaluate
from gtc_pyg.loader import InteractionLoader
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--root", help="folder of TikTok (default: planted data)")
parser.add_argument("--epochs", type=int, default=30, help="largest number (default: 30)")
parser.add_argument("--patience", type=int, default=10, help="epochs without a better one")
parser.add_argument("--lr", type=float, default=0.005, help="learning rate (default: 0.005)")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--save", help="folder for the recommender (needs the extra 'recommend')")
args = parser.parse_args()
if args.save:
    from gtc_pyg.recommend import Recommender, check_place  # says so now where it is missing

    check_place(args.save)

torch.manual_seed(args.seed)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

graph = ItemKNNGraph(k=10)
dataset = (
    TikTok(args.root, pre_transform=graph) if args.root else PlantedPreferences(transform=graph)
)
data = dataset[0].to(device)
features = {name: data["item"][f"x_{name}"] for name in dataset.modalities}
edges, weights = data.edge_index_dict, data.collect("edge_weight", allow_empty=True)
train, val, test = (
    dataset.view(split)["user", "rates", "item"].edge_label_index.to(device)
    for split in ("train", "val", "test")
)

model = GTC(
    dataset.num_users,
    dataset.num_items,
    in_channels={name: x.size(1) for name, x in features.items()},
).to(device)
model.prepare(edges, weights)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
loader = InteractionLoader(train, dataset.num_users, dataset.num_items, seed=args.seed)
generator = torch.Generator(device).manual_seed(args.seed)

best_epoch, best_recall, best_state = 0, -1.0, copy.deepcopy(model.state_dict())
bar = tqdm(range(1, args.epochs + 1), desc="GTC")
for epoch in bar:
    model.train()
    epoch_graph = model.training_graph(edges, weights, generator)
    for user, pos_item, neg_item in loader:
        parts = model.loss(user, pos_item, neg_item, features, epoch_graph, generator=generator)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()

    model.eval()
    with torch.no_grad():
        recall = evaluate(*model(features, edges, weights), val, exclude=[train])["Recall@20"]
    bar.set_postfix({name: f"{part.item():.3f}" for name, part in parts.items()} | {"val": recall})
    if recall > best_recall:
        best_epoch, best_recall, best_state = epoch, recall, copy.deepcopy(model.state_dict())
    elif epoch - best_epoch >= args.patience:
        break

model.load_state_dict(best_state)
with torch.no_grad():
    metrics = evaluate(*model(features, edges, weights), test, exclude=[train])
print(f"best epoch {best_epoch}, validation Recall@20 {best_recall:.4f}; test:")
for name, value in metrics.items():
    print(f"  {name:<13} {value:.4f}")
if args.save:
    print(f"saved in {Recommender(model, dataset).save(args.save)}")
