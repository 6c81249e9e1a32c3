"""Tables laid row-wise over two gloo processes train like those of one process."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.nn import Embedding, Linear, ModuleDict

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.distributed import own_rows, world_size
from gtc_pyg.graph.csr_graph import SampledNodes
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.loader import InteractionLoader
from gtc_pyg.models import GraphRecommender, LightGCN
from gtc_pyg.row_wise_embedding import RowWiseEmbedding, distribute_tables
from gtc_pyg.transforms import ItemKNNGraph
from tests.models.graphs import gtc_of
from tests.two_processes import in_two_processes

IDS = [torch.tensor([0, 6, 6, 2]), torch.tensor([5, 1])]
FACTORS = [torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3) - 2]


def train(kind: str, looked_up: bool) -> dict:
    """Five steps; with ``looked_up`` rows are fetched by id, as sampled graphs do."""
    dataset = PlantedPreferences(61, 41, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=4))
    inputs = GraphInputs.from_data(dataset[0])
    torch.manual_seed(0)
    model: GraphRecommender = LightGCN(61, 41, 8)
    if kind == "gtc":
        widths = {name: x.size(1) for name, x in dataset.features.items()}
        sizes = {"num_users": 61, "num_items": 41, "in_channels": widths}
        model = gtc_of(SimpleNamespace(**sizes, **vars(inputs)))
    if world_size() > 1:
        distribute_tables(model, init_device_mesh("cpu", (2,)))
    edges = inputs.edge_index_dict["user", "rates", "item"]
    nodes = None
    if looked_up:
        degrees = [ids.bincount() for ids in edges]
        nodes = SampledNodes(torch.arange(61), torch.arange(41), *degrees)
    graph = model.csr_graph(inputs.edge_index_dict, inputs.edge_weight_dict, nodes)
    tables = [model.user_emb, model.item_emb]
    tables = [parameter for table in tables for parameter in table.parameters()]
    rest = [p for p in model.parameters() if all(p is not table for table in tables)]
    optimizers = [torch.optim.Adam(part, lr=0.01) for part in (tables, rest) if part]
    generator, losses = torch.Generator().manual_seed(0), []
    loader = InteractionLoader(edges, 61, 41, batch_size=63)
    for _, batch in zip(range(5), loader, strict=False):
        share, weight = own_rows(batch.user.numel())
        if kind == "gtc":  # compares rows of the batch: all of them on every process
            share, weight = slice(None), 1.0
        parts = model.loss(*(x[share] for x in batch), inputs.features, graph, generator=generator)
        loss = weight / world_size() * torch.stack(list(parts.values())).sum()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        total = loss.detach().clone()
        if world_size() > 1:
            for tensor in (total, *(p.grad for p in rest)):
                dist.all_reduce(tensor)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(total))
    embedded = model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
    weights = [model.user_emb.weight, model.item_emb.weight, *rest, *embedded]
    state = [s for o in optimizers[:1] for p in o.state.values() for s in (p["exp_avg"],)]
    held = [s.to_local().numel() if world_size() > 1 else s.numel() for s in state]
    return {"losses": losses, "weights": [x.detach() for x in weights], "held": held}


def lookups() -> dict:
    torch.manual_seed(0)
    embedding, number = Embedding(7, 3), dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    table = RowWiseEmbedding(copy.deepcopy(embedding), mesh)
    out = table(IDS[number])
    (out * FACTORS[number]).sum().backward()
    grad = table.rows.grad
    spoilt = Embedding(7, 3)
    with torch.no_grad():
        spoilt.weight[[0, 4]] = torch.nan  # the first rows of both blocks
    clean = RowWiseEmbedding(spoilt, mesh)(torch.tensor([1, 5])).detach()
    frozen = distribute_tables(LightGCN(4, 5, 2).requires_grad_(False), mesh)
    distributed = distribute_tables(LightGCN(4, 5, 2), mesh)
    with pytest.raises(RuntimeError, match="before the tables are distributed"):
        distributed.reset_parameters()
    outside = []
    for ids in ([0, 7], [-1, 0]):  # on one process; both are told
        with pytest.raises(ValueError) as error:
            table(torch.tensor(ids if number == 1 else [0]))
        outside.append(str(error.value))
    refused = []
    for small, devices in ((1, mesh), (7, SimpleNamespace(ndim=2, size=lambda: 2, shape=(1, 2)))):
        with pytest.raises(ValueError) as error:
            RowWiseEmbedding(Embedding(small, 3), devices)
        refused.append(str(error.value))
    return {
        "out": out.detach(),
        "whole": table.weight.detach(),
        "grad": grad.full_tensor(),
        "row_wise": grad.placements == (Shard(0),) and table.rows.placements == (Shard(0),),
        "rows": grad.to_local().size(0),
        "refused": refused,
        "left_over": [n for n, m in distributed.named_modules() if isinstance(m, Embedding)],
        "laid": [n for n, m in distributed.named_modules() if isinstance(m, RowWiseEmbedding)],
        "clean": clean,
        "frozen": [parameter.requires_grad for parameter in frozen.parameters()],
        "outside": outside,
    }


CASES = [("lightgcn", False), ("lightgcn", True), ("gtc", False), ("gtc", True)]


def both(number: int) -> dict:
    return {case: train(*case) for case in CASES} | {"lookups": lookups()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return in_two_processes(both, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("case", CASES)
def test_losses_weights_and_embeddings_are_those_of_one_process(two, case):
    one = train(*case)
    for found in (report[case] for report in two):
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-5)
        for got, expected in zip(found["weights"], one["weights"], strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_the_state_of_its_rows_alone(two, case):
    width = 8
    assert [report[case]["held"] for report in two] == [
        [31 * width, 21 * width],
        [30 * width, 20 * width],
    ]


def test_each_process_looks_up_rows_of_its_own_choice(two):
    torch.manual_seed(0)
    embedding = Embedding(7, 3)
    for report, ids in zip(two, IDS, strict=True):
        torch.testing.assert_close(report["lookups"]["out"], embedding(ids))
        torch.testing.assert_close(report["lookups"]["whole"], embedding.weight)
    sum((embedding(i) * f).sum() for i, f in zip(IDS, FACTORS, strict=True)).backward()
    for report in two:
        torch.testing.assert_close(report["lookups"]["grad"], embedding.weight.grad)
        assert report["lookups"]["row_wise"]
    assert [report["lookups"]["rows"] for report in two] == [4, 3]


def test_tables_are_replaced_and_frozen_ones_stay_frozen(two):
    for report in two:
        assert report["lookups"]["left_over"] == []
        assert report["lookups"]["laid"] == ["user_emb", "item_emb"]
        assert report["lookups"]["frozen"] == [False, False]


def test_a_row_that_is_not_a_number_spoils_no_other(two):
    assert all(report["lookups"]["clean"].isfinite().all() for report in two)


def test_an_id_out_of_range_is_refused_on_all_processes(two):
    for report in two:
        assert report["lookups"]["outside"] == [
            "'ids' holds 7, expected 0 to 6",
            "'ids' holds -1, expected 0 to 6",
        ]


def test_too_few_rows_and_a_wrong_mesh_are_refused(two):
    few, mesh = two[0]["lookups"]["refused"]
    assert "'embedding' must have rows for 2 processes (got 1" in few
    assert "'mesh' must hold the 2 processes in one dimension (got [1, 2])" in mesh


def test_a_model_without_tables_is_refused():
    with pytest.raises(ValueError, match=r"'model' must have embedding tables \(got Linear\)"):
        distribute_tables(Linear(2, 2), None)


@pytest.mark.parametrize(
    ("option", "value"), [("padding_idx", 0), ("max_norm", 1.0), ("scale_grad_by_freq", True)]
)
def test_a_table_with_options_is_refused(option, value):
    model = ModuleDict({"table": Embedding(4, 2, **{option: value})})
    mesh = SimpleNamespace(ndim=1, size=lambda: 1, shape=(1,))
    with pytest.raises(ValueError, match=rf"'embedding' must have no {option} \(got {value}\)"):
        distribute_tables(model, mesh)
    assert isinstance(model["table"], Embedding)


def test_a_table_under_two_names_is_refused():
    table, tied = Embedding(4, 2), Linear(2, 4, bias=False)
    tied.weight = table.weight
    for other in (table, tied):
        model = ModuleDict({"table": table, "other": other})
        with pytest.raises(ValueError, match=r"one name \(got \['table.weight', 'other.weight'\]"):
            distribute_tables(model, None)


def test_a_table_alone_is_no_model():
    with pytest.raises(ValueError, match=r"must hold its tables \(got Embedding\)"):
        distribute_tables(Embedding(4, 2), None)
