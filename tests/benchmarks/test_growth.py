import subprocess

import pytest
import torch

import growth
import growth_report
import growth_worker
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.loader import InteractionLoader
from harness import filled

QUARTILES = ["median", "q1", "q3"]
SIZES = [10**5, 10**6, 2 * 10**7]


def row_of(interactions, us, **values):
    """A row of the curves."""
    return dict.fromkeys(growth.GROWTH.header, "") | {
        "what": "mini-batches",
        "model": "gtc",
        "interactions": str(interactions),
        "sizes": str(SIZES),
        "fan_out": "[3, 2]",
        "item_fan_out": "[2, 0]",
        "batch": growth_report.MAIN,
        "steps": "200",
        "rounds": "10",
        "threads": "2",
        "sampled_users": "500",
        "sampled_items": "600",
        "step_s": "0.02",
        "quartile_1_s": "0.01",
        "quartile_3_s": "0.03",
        "sampling_s": "0.005",
        "us_per_interaction": str(us),
        **{f"to_{to}_{key}": "1" for to in ("previous", "smallest") for key in QUARTILES},
        "epoch_extrapolated_s": "7260",
        "setup_peak_mib": "2000",
        "peak_mib": "1100",
        "tables_mib": "500",
        "content_mib": "300",
        "adjacency_mib": "250",
        **values,
    }


def test_the_page_shows_the_committed_rows():
    page = growth_report.PAGE.read_text()
    rows = growth.GROWTH.rows()
    assert filled(page, growth_report.texts(rows)) == page
    assert growth_report.PLOT.exists() == (growth_report.FIGURE in page)


def test_every_row_says_what_it_came_from_and_is_there_once():
    rows = growth.GROWTH.rows()
    keys = [tuple(row[key] for key in growth.GROWTH.key) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert row["commit"] and row["versions"] and row["seed"], row
        if row["what"] == "mini-batches":
            assert all(row.values()), row
            assert int(row["steps"]) >= 200, row


def test_tables_by_hand():
    twice = {f"to_previous_{key}": 1.1 + 0.1 * i for i, key in enumerate(QUARTILES)}
    far = {
        f"to_{to}_median": 1.1**decades
        for to, decades in (("previous", 1.30103), ("smallest", 2.30103))
    }
    rows = [row_of(10**5, 400), row_of(10**6, 500, **twice), row_of(2 * 10**7, 600, **far)]
    table = growth_report.time_table(rows).splitlines()
    title = (
        "**Batch of 32**, fan-out [3, 2], similar items [2, 0], 200 steps in 10 turns, 2 threads"
    )
    assert table[0] == title
    first, second, last = table[-3:]
    assert first == "| GTC | 100,000 | 1,100 | 20.0 (10.0 to 30.0) | 25% | 400 |  |  | 2.0 h |"
    assert "| 500 | +10% (+20% to +30%) | +0% (+0% to +0%) |" in second
    assert "| 600 | +10% (+0% to +0%) | +10% (+0% to +0%) |" in last
    assert growth_report.memory_table(rows).splitlines()[-1] == (
        "| GTC | 20,000,000 | 2,000 | 1,100 | 500 | 300 | 250 | 50 |"
    )
    items = row_of(30_000, 100, what="item graph", items="30000", step_s="3.0")
    shown = "| 30,000 | 2 | 3.0 | 100 | 1,100 | 300 | 3,433 |"
    assert growth_report.item_table([*rows, items]).splitlines()[-1] == shown
    with pytest.raises(ValueError, match="a size stands twice"):
        growth_report.time_table([*rows, rows[0]])


def test_other_batches_have_tables_of_their_own_and_no_curve():
    rows = [row_of(10**5, 400), row_of(10**5, 200, batch="256")]
    table = growth_report.time_table(rows)
    assert table.index("**Batch of 32**") < table.index("**Batch of 256**")
    assert len(growth_report.memory_table(rows).splitlines()) == 3
    whole = growth_report.time_table(
        [row_of(10**5, 5, what="whole graph", fan_out="")], "whole graph"
    )
    assert "fan-out" not in whole


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="lacks '<!-- plot -->'"):
        filled("# page", growth_report.texts([]))


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "growth.png"
    growth_report.draw([row_of(10**5, 400), row_of(10**6, 420)], path)
    assert path.stat().st_size > 10_000


def test_planted_graphs_have_the_promised_sizes_and_groups():
    data = growth_worker.planted(20_000)
    user, item = data[USER_TO_ITEM].edge_index
    assert (data["user"].num_nodes, data["item"].num_nodes) == (1000, 300)
    assert 18_000 < user.numel() <= 20_000
    assert torch.unique(user * 300 + item).numel() == user.numel()
    assert torch.equal(data[ITEM_TO_USER].edge_index, torch.stack([item, user]))
    same = (user % 4 == item // 75).float().mean()
    assert same == pytest.approx(0.8 + 0.2 / 4, abs=0.03)
    source, target = data[SIMILAR_ITEMS].edge_index
    assert torch.equal(source // 75, target // 75)
    x = torch.nn.functional.normalize(data["item"].x_image, dim=1)
    cosine = x @ x.t()
    group = torch.arange(300) // 75
    within = group.view(-1, 1) == group
    assert cosine[within].mean() > cosine[~within].mean() + 0.2


def test_what_must_grow_is_counted_by_hand():
    data = growth_worker.planted(2_000)
    model = growth_worker.model_of("freedom", data)
    users, items, edges = 100, 40, data[USER_TO_ITEM].edge_index.size(1)
    inputs = GraphInputs.from_data(data)
    graph = model.training_graph(inputs.edge_index_dict, inputs.edge_weight_dict)
    stored = growth_worker.stored_mib(model, data, [data, graph])
    assert stored["tables_mib"] * 2**20 == 12 * 64 * (users + items)
    assert stored["content_mib"] * 2**20 == 4 * 2 * items * 128
    given = 2 * 16 * edges + (16 + 4) * 10 * items  # edge_index both ways, weighted similar items
    similar = graph[SIMILAR_ITEMS].values().numel()  # those drawn twice are one
    csr = 4 * (2 * edges + similar) + 8 * (users + 1 + 2 * (items + 1))
    # Columns are half of the sorted edge_index, which stays as a whole.
    csr += 16 * (2 * edges + similar)
    assert stored["adjacency_mib"] * 2**20 == given + csr
    loader = InteractionLoader(data[USER_TO_ITEM].edge_index, users, items)
    more = growth_worker.stored_mib(model, data, [data, graph, loader])["adjacency_mib"]
    keys = 8 * edges + 2 * 8 * users  # of the negatives: keys, and two numbers for every user
    assert (more - stored["adjacency_mib"]) * 2**20 == pytest.approx(keys)


def test_lightgcn_is_given_what_it_reads():
    data = growth_worker.planted(2_000)
    growth_worker.model_of("lightgcn", data)
    assert set(data.edge_types) == {USER_TO_ITEM, ITEM_TO_USER}
    assert not [key for key in data["item"] if key.startswith("x_")]


class Here:
    """A worker without a process."""

    def __init__(self, run):
        self.task, self.process = growth_worker.main(run), subprocess.Popen(["true"])

    def ask(self, command, *args):
        return getattr(self.task, command)(*args)


def test_sizes_take_turns_and_drift_cancels(monkeypatch):
    calls, ended = [], []

    class Drifting:
        """A size on a machine that slows by 1 % with each turn of any size."""

        def __init__(self, run):
            self.size, self.process = run["interactions"], self
            self.communicate = lambda: ended.append(self.size)

        def ask(self, command, *args):
            calls.append((self.size, command, *args))
            if command == "about":
                return {"epoch_steps": 100}
            return [(self.size * 1.01 ** len(calls), 0.5)] * args[0]

    monkeypatch.setattr(growth, "start", Drifting)
    options = "--interactions 30 10 20 --models gtc --steps 31 --turn 8 --warm-up 7 --batch 4"
    (runs,) = growth.runs_of(growth.options().parse_args(options.split()))
    rows = growth.measure(runs, 8, 7)
    there, back = (
        [(n, "time", 8, 2) for n in (10, 20, 30)],
        [(n, "time", 8, 2) for n in (30, 20, 10)],
    )
    warm_up, about = [(n, "time", 0, 7) for n in (10, 20, 30)], [(n, "about") for n in (10, 20, 30)]
    assert calls == warm_up + there + back + there + back + about
    assert ended == [10, 20, 30]
    assert [(row["interactions"], row["steps"], row["rounds"]) for row in rows] == [
        (n, 32, 4) for n in (10, 20, 30)
    ]
    for row, previous, smallest in zip(rows, (1, 2, 1.5), (1, 2, 3), strict=True):
        assert float(row["to_previous_median"]) == pytest.approx(previous, rel=1e-3)
        assert float(row["to_smallest_median"]) == pytest.approx(smallest, rel=1e-3)


def test_times_and_ratios_by_hand():
    slow, fast = (
        ([(6, 1), (9, 2), (90, 3)], [(20, 4), (24, 5), (30, 6)]),
        ([(3, 1)] * 3, [(4, 1)] * 3),
    )
    rows = [{"batch": 2, "epoch_steps": 10}, {"batch": 2, "epoch_steps": 10}]
    first, second = growth.with_times(rows, [list(fast), list(slow)])
    assert first["to_previous_q3"] == first["to_smallest_q1"] == "1.0000"
    times = {"step_s": 22, "quartile_1_s": 11.75, "quartile_3_s": 28.5, "sampling_s": 3.5}
    assert {key: float(second[key]) for key in times} == times
    assert (second["us_per_interaction"], second["epoch_extrapolated_s"]) == ("11000000.0", "220")
    for to in ("previous", "smallest"):  # 9 of 3, then 24 of 4
        ratios = [second[f"to_{to}_{key}"] for key in QUARTILES]
        assert ratios == ["4.5000", "3.7500", "5.2500"]


def test_a_turn_trains_the_steps_that_it_is_told():
    options = "--whole --interactions 4000 --models lightgcn --batch 64 --threads 1 --turn 2"
    ((run,),) = growth.runs_of(growth.options().parse_args(options.split()))
    task, sizes = growth_worker.Training(run), []
    loss = task.model.loss
    task.model.loss = lambda user, *args, **kw: sizes.append(len(user)) or loss(user, *args, **kw)
    before = [x.detach().clone() for x in task.model.parameters()]
    assert (task.time(0, 2), len(task.sampled)) == ([], 2)
    assert not any(map(torch.equal, before, task.model.parameters()))
    times = task.time(3, 1)
    assert (len(times), len(task.sampled)) == (3, 6)
    assert all(0 < sampling < seconds for seconds, sampling in times)
    epoch = task.about()["epoch_steps"]
    assert (epoch - 1) * 64 < task.data[USER_TO_ITEM].edge_index.size(1) <= epoch * 64
    task.time(epoch, 0)  # goes on into the next epoch, without counting the last, smaller batch
    assert len(task.sampled) == sizes.count(64) == len(sizes) - 1 == 6 + epoch
    assert {seen[:2] for seen in task.sampled} == {(200, 60)}


def test_a_model_needs_two_turns(capsys):
    with pytest.raises(SystemExit):
        growth.main(["--steps", "20"])
    assert "--steps must be more than a turn of 20 (got 20)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_run_gives_every_column(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    out, threads = tmp_path / "rows.csv", str(torch.get_num_threads())
    common = ["--steps", "2", "--turn", "1", "--warm-up", "1", "--out", str(out)]
    common += ["--threads", threads]
    for sizes in (["8000", "4000"], ["4000", "8000"]):  # the second finds its rows and does nothing
        growth.main(["--interactions", *sizes, "--models", "gtc", *common])
    monkeypatch.setattr(growth, "start", Here)
    growth.main(["--whole", "--interactions", "4000", "--models", "freedom", *common])
    growth.main(["--items", "500", "--threads", threads, "--out", str(out)])
    training, larger, whole, items = growth.GROWTH.rows(out)
    assert all(training.values()) and all(larger.values())
    assert (training["interactions"], larger["interactions"]) == ("4000", "8000")
    for row in (training, larger, whole):
        assert float(row["step_s"]) > float(row["sampling_s"]) > 0
    assert growth_report.rest_mib(training) > 0
    assert (whole["what"], whole["sampled_users"]) == ("whole graph", whole["users"])
    assert (items["what"], items["items"]) == ("item graph", "500")
    assert "what item graph" in capsys.readouterr().err
