import json
import math

import pytest
import torch

import speed
import speed_report
import speed_worker
from gtc_pyg.experiment import build_model
from gtc_pyg.functional import spmm
from gtc_pyg.lightning import GraphInputs, fit
from gtc_pyg.models import FREEDOM, GTC, LightGCN
from harness import filled
from speed_counter import StepCounter

MODEL_KEYS = {"step_s", "q1", "q3", "mean_s", "peak_mib", "base_mib", "cpu_s", "faults", "extras"}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The JSON file of a run with few, small steps."""
    path = tmp_path_factory.mktemp("speed") / "out.json"
    models = ["gtc", "pyg_lightgcn"] + ["pyg_lightgcn_bare"] * bool(speed.extras())
    options = "--dataset planted --steps 3 --rounds 2 --threads 1 --square 64 --copied 100000"
    options = [*options.split(), "--negatives", "--json", str(path), "--models", *models]
    speed.main(options)
    return json.loads(path.read_text())


def test_a_run_has_its_keys(live):
    assert set(live["models"]) == set(live["ratios"]) >= {"gtc", "pyg_lightgcn"}
    for row in live["models"].values():
        assert set(row) == MODEL_KEYS
        assert 0 < row["q1"] <= row["step_s"] <= row["q3"]
        assert row["cpu_s"] > 0 <= row["faults"]
        assert 100 < row["base_mib"] <= row["peak_mib"]
    for key in ("flops", "bytes", "floor_s", "commit", "versions", "seed"):
        assert live[key] is not None
    assert set(live["machine"]) == {"cpu", "cores", "threads", "load"}


def test_bare_processes_see_neither_package(live):
    for name, row in live["models"].items():
        assert row["extras"] == ([] if name.endswith("_bare") else speed.extras())


def test_ratios_are_those_of_the_times(live):
    assert live["ratios"]["pyg_lightgcn"] == {"median": 1, "q1": 1, "q3": 1, "memory": 1}
    ratio, (ours, other, *_) = live["ratios"]["gtc"], live["models"].values()
    assert ratio["q1"] <= ratio["median"] <= ratio["q3"]
    assert ratio["memory"] == pytest.approx(ours["peak_mib"] / other["peak_mib"], rel=1e-4)


def test_the_floor_is_made_of_what_was_counted(live):
    assert live["flops"] == pytest.approx(
        sum(row["flops"] for row in live["groups"].values()), rel=1e-4
    )
    assert live["bytes"] == pytest.approx(
        sum(row["bytes"] for row in live["groups"].values()), rel=1e-4
    )
    kinds = {name for name, row in live["groups"].items() if row["flops"] > 0}
    assert kinds == {"dense products", "sparse products"}
    assert live["floor_s"] <= live["floor_sum_s"] <= 2 * live["floor_s"]
    assert 0 < live["floor_s"] < live["models"]["gtc"]["step_s"]
    assert live["floor_ratio"]["median"] > 1


def test_exact_negatives_are_never_wrong(live):
    rows = live["negatives"]
    assert rows["sampler"]["ratio"] == {"median": 1, "q1": 1, "q3": 1}
    for exact in ("sampler", "structured", "row_loop"):
        assert rows[exact]["wrong"] == 0
    assert rows["uniform"]["wrong"] > rows["structured_batches"]["wrong"] >= 0


def test_operations_and_bytes_by_hand():
    # [5, 4] -> [5, 3], then seven entries of a [6, 5] matrix, then two rows, then Adam.
    lin, x = torch.nn.Linear(4, 3, bias=False), torch.randn(5, 4)
    adj = torch.zeros(6, 5)
    adj.view(-1)[:7] = 1
    both = adj.to_sparse_csr(), adj.t().to_sparse_csr()
    optimizer = torch.optim.Adam(lin.parameters(), fused=True)
    with StepCounter() as counter:
        out = spmm(*both, lin(x)).index_select(0, torch.tensor([1, 4]))
        out.sum().backward()
        optimizer.step()
    flops = {name: row["flops"] for name, row in counter.groups.items() if row["flops"]}
    assert flops == {"dense products": 2 * (2 * 5 * 4 * 3), "sparse products": 2 * (2 * 7 * 3)}
    moved = {name: row["bytes"] for name, row in counter.groups.items() if row["bytes"]}
    matrix = 8 * (7 + 7) + 4 * 7, 8 * (6 + 7) + 4 * 7  # row pointers, columns, values
    assert moved == {
        "dense products": 2 * 4 * (5 * 4 + 4 * 3 + 5 * 3),
        "sparse products": sum(matrix) + 2 * 4 * (5 * 3 + 6 * 3),
        "gathers and scatters": 2 * (2 * 4 * 2 * 3),
        "optimizer": 7 * 4 * 12,
    }
    assert counter.shapes == {(5, 4, 3): 1, (3, 5, 4): 1}


def test_in_place_products_count_what_they_add_to():
    with StepCounter() as counter:
        torch.zeros(2, 2).addmm_(torch.ones(2, 3), torch.ones(3, 2))
        torch.zeros(2, 2).addmm_(torch.ones(2, 3), torch.ones(3, 2), beta=0.0)
    row = counter.groups["dense products"]
    assert (row["flops"], row["bytes"]) == (2 * 24, 4 * (6 + 6 + 4 + 4) + 4 * (6 + 6 + 4))


def test_a_product_that_is_not_counted_is_refused():
    with (
        pytest.raises(NotImplementedError, match="does not count 'bmm'"),
        StepCounter(),
    ):
        torch.bmm(torch.ones(1, 2, 3), torch.ones(1, 3, 2))


def test_floor_and_ratios_by_hand():
    groups = {
        "dense products": {"flops": 60, "bytes": 100},
        "sparse products": {"flops": 10, "bytes": 50},
        "optimizer": {"flops": 0, "bytes": 150},
    }
    count = {name: row | {"calls": 1, "seconds": 1} for name, row in groups.items()}
    slow, fast = ({"dense": 20, "sparse": 10, "copy": copy} for copy in (50, 100))
    assert speed.floor(count, slow) == {
        "floor_s": 6,
        "floor_products_s": 4,
        "floor_bytes_s": 6,
        "floor_sum_s": 10,
    }
    assert speed.floor(count, fast)["floor_s"] == 4
    seconds = {"gtc": [[8, 12, 9], [30, 12]], "pyg_lightgcn": [[3, 3, 100], [6, 8]]}
    about = {"gtc": {"peak_mib": 300}, "pyg_lightgcn": {"peak_mib": 200}}
    result = speed.summary(seconds, about, [count, count], [slow, fast])
    assert result["models"]["gtc"]["step_s"] == 12
    assert result["models"]["pyg_lightgcn"]["mean_s"] == 24
    # Turns: 9 of 3, then 21 of 7: the other models' noise has gone.
    assert result["ratios"]["gtc"] == {"median": 3, "q1": 3, "q3": 3, "memory": 1.5}
    assert result["floor_s"] == 5
    assert result["floor_ratio"]["median"] == (9 / 6 + 21 / 4) / 2
    assert (result["flops"], result["bytes"]) == (70, 300)


@pytest.mark.parametrize("decay", [0.0, 0.8])
@pytest.mark.parametrize("model_class", [GTC, FREEDOM, LightGCN])
def test_a_step_is_one_of_training(planted_dataset, model_class, decay, tmp_path):
    dataset = planted_dataset(60, 80, mean_degree=20.0)
    inputs, sizes = GraphInputs.from_data(dataset[0]), (dataset.num_users, dataset.num_items)
    torch.manual_seed(0)
    chosen = {"edge_dropout": 0.3}
    chosen |= {"heads": [{"class": "SpectralHead", "channels": 8}]} if model_class is GTC else {}
    name = model_class.__name__.lower()
    model = build_model(name, dataset, **chosen)
    options = {"batch_size": 128, "seed": 0, "weight_averaging": decay}
    fit(model, dataset, lr=0.01, epochs=1, out=tmp_path, progress=False, **options)

    settings = {"spectral_start": True, "lr": 0.01, "model": chosen, "modalities": None}
    settings["weight_averaging"] = decay
    train = dataset.view("train")["user", "rates", "item"].edge_label_index
    data = {
        "features": inputs.features,
        "edges": inputs.edge_index_dict,
        "weights": inputs.edge_weight_dict,
        "train": train,
        "num_users": sizes[0],
        "num_items": sizes[1],
    }
    options = {"settings": {name: settings}, "batch_size": 128, "seed": 0, "device": "cpu"}
    torch.manual_seed(0)
    steps = speed_worker.our_steps(name, data, options)
    for _ in range(math.ceil(train.size(1) / 128)):
        next(steps)
    timed = steps.gi_frame.f_locals["model"]
    timed = steps.gi_frame.f_locals["average"].module if decay else timed
    for key, value in model.state_dict().items():
        torch.testing.assert_close(timed.state_dict()[key], value, msg=key)


def test_steps_of_pyg_learn_the_same_in_both_forms(planted_dataset):
    dataset = planted_dataset(60, 80, k=None, mean_degree=20.0)
    train = dataset.view("train")["user", "rates", "item"].edge_label_index
    data = {"train": train, "num_users": 60, "num_items": 80}
    losses = {}
    for name in ["pyg_lightgcn", "pyg_lightgcn_sparse"][: 1 + ("torch_sparse" in speed.extras())]:
        torch.manual_seed(0)
        steps = speed_worker.pyg_steps(name, data, {"batch_size": 128, "device": "cpu"})
        losses[name] = []
        for _ in range(300):
            next(steps)
            losses[name].append(steps.gi_frame.f_locals["loss"].item())
        assert losses[name] == pytest.approx(losses["pyg_lightgcn"], rel=1e-4)
    assert sum(losses[name][-20:]) < 0.9 * sum(losses[name][:20])
    pairs = steps.gi_frame.f_locals["pairs"]
    assert 0 <= pairs[0].min() <= pairs[0].max() < 60 <= pairs[1].min() <= pairs[1].max() < 140


def test_the_page_shows_the_committed_results():
    page = speed_report.PAGE.read_text()
    assert filled(page, speed_report.texts(speed_report.read_results())) == page


def test_the_page_shows_a_result(live):
    page = filled(speed_report.PAGE.read_text(), speed_report.texts([live]))
    step = live["models"]["gtc"]["step_s"]
    assert f"| GTC | {1000 * step:.1f} (" in page
    assert f"| **floor**, the larger | {1000 * live['floor_s']:.3g} ms |" in page
    assert f"{live['negatives']['uniform']['wrong']:.2%}" in page
    assert "**planted**, 1 thread (" in page
    with pytest.raises(ValueError, match="lacks '<!-- steps -->'"):
        filled("# page", speed_report.texts([live]))


def test_options_are_checked(capsys):
    args = speed.checked(speed.options().parse_args(["--models", "lightgcn"]))
    assert args.models == ["gtc", "lightgcn", "pyg_lightgcn"]
    for wrong in (["--rounds", "1"], ["--models", "bert"]):
        with pytest.raises(SystemExit):
            speed.main(wrong)
        assert wrong[1] in capsys.readouterr().err
