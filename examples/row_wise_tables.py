"""Embedding tables laid row-wise over processes: each holds its rows, gradients and Adam state.

    torchrun --nproc-per-node 2 -- examples/row_wise_tables.py --seed 0

Of every batch each process takes its share and samples the graph around it (torch-sparse samples);
rows that lie elsewhere travel. All neighbours are sampled here, so that the losses are those of one
process: python examples/row_wise_tables.py
"""

import argparse

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.distributed import launched, own_rows, rank, world_size
from gtc_pyg.loader import SubgraphLoader
from gtc_pyg.models import LightGCN
from gtc_pyg.row_wise_embedding import distribute_tables

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    if launched():
        dist.init_process_group("gloo")
    dataset = PlantedPreferences(600, 300, seed=args.seed)
    torch.manual_seed(args.seed)  # the same weights everywhere, before each keeps its rows
    model = LightGCN(dataset.num_users, dataset.num_items, hidden_channels=32)
    if launched():
        distribute_tables(model, init_device_mesh("cpu", (world_size(),)))
    own = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    held, total = (sum(p.size(0) for p in tables) for tables in (own, model.parameters()))
    print(f"process {rank()} holds {held} of {total} rows")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = SubgraphLoader(dataset[0], [-1, -1], batch_size=2048, seed=args.seed)
    for epoch in range(args.epochs):
        losses = []
        for batch in loader:
            weight = own_rows(batch.num_triples)[1] / world_size()  # shares add up to the batch
            parts = model.loss(*batch.triple, {}, model.subgraph(batch))
            loss = weight * sum(parts.values())
            optimizer.zero_grad()
            loss.backward()  # sums the tables' gradients over the processes
            optimizer.step()
            losses.append(loss.detach())
        epoch_losses = torch.stack(losses)
        if launched():
            dist.all_reduce(epoch_losses)
        if rank() == 0:
            print(f"epoch {epoch + 1}: loss {epoch_losses.mean():.6f}")
    if launched():
        dist.destroy_process_group()
