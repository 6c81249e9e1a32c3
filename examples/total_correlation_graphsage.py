"""Two views of papers agree: one more term in the loss of a plain heterogeneous GraphSAGE.

    python examples/total_correlation_graphsage.py --seed 0

Papers have two feature views and authors, and four of each field are labelled. PyG's GraphSAGE,
through ``to_hetero`` and one copy a view, is trained on the labels alone, and with the views' loss.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch
import torch_geometric.transforms as T
from torch.nn.functional import cross_entropy
from torch_geometric.data import HeteroData
from torch_geometric.nn import GraphSAGE, to_hetero

from gtc_pyg.nn import TotalCorrelationLoss

VIEWS = ("words", "figures")


def make_papers(num_papers: int = 1000, num_authors: int = 300, num_fields: int = 6) -> HeteroData:
    """Each view shows a paper's topic under clutter of its own; authors stay in one field."""
    data, field = HeteroData(), torch.randint(num_fields, (num_papers,))
    topic = torch.randn(num_fields, 8)[field] + 0.7 * torch.randn(num_papers, 8)
    for view in VIEWS:
        clutter = torch.randn(num_papers, 16) @ torch.randn(16, 32)
        data["paper"][f"x_{view}"] = 0.35 * topic @ torch.randn(8, 32) + 0.75 * clutter
    data["paper"].y, data["author"].x = field, torch.ones(num_authors, 1)
    author = torch.randint(num_authors // num_fields, (num_papers,)) * num_fields + field
    data["author", "writes", "paper"].edge_index = torch.stack([author, torch.arange(num_papers)])
    return T.ToUndirected()(data)


def accuracy(data: HeteroData, weight: float, epochs: int = 80) -> float:
    """Share of unlabelled papers whose field is right; ``weight`` is of the views' agreement."""
    torch.manual_seed(0)
    y, head, align = data["paper"].y, torch.nn.Linear(64, 6), TotalCorrelationLoss()
    labelled = torch.cat([(y == field).nonzero()[:4, 0] for field in y.unique()])
    sage = [to_hetero(GraphSAGE((-1, -1), 64, 2, 32), data.metadata()) for _ in VIEWS]
    x = [{"paper": data["paper"][f"x_{v}"], "author": data["author"].x} for v in VIEWS]
    model = torch.nn.ModuleList([*sage, head, align])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=1e-3)
    for _ in range(epochs):
        out = [net(v, data.edge_index_dict)["paper"] for net, v in zip(sage, x, strict=True)]
        fields = head(torch.cat(out, dim=1))
        optimizer.zero_grad()
        (cross_entropy(fields[labelled], y[labelled]) + weight * align(out)).backward()
        optimizer.step()
    right = (fields.argmax(dim=1) == y).float()
    return (right.sum() - right[labelled].sum()).item() / (y.numel() - labelled.numel())


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the data")
    torch.manual_seed(parser.parse_args().seed)
    papers = make_papers()
    print(f"labels alone      accuracy {accuracy(papers, weight=0.0):.3f}")
    print(f"views agree too   accuracy {accuracy(papers, weight=0.3):.3f}")
