import pytest
import torch

from benchmarks import growth
from gtc_pyg.models.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM


def test_planted_graphs_have_the_sizes_and_groups_that_are_promised():
    data = growth.planted(20_000)
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
    data = growth.planted(2_000)
    model = growth.model_of("lightgcn", data)
    edges = 2 * (2 * data[USER_TO_ITEM].edge_index.size(1) + 10 * 40)
    expected = 12 * 64 * (100 + 40) + 4 * 2 * 40 * 128 + 16 * edges
    assert growth.expected_mib(model, data) == pytest.approx(expected / 2**20)


@pytest.mark.slow
def test_a_short_run_gives_every_column(tmp_path, capsys):
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    out = tmp_path / "rows.csv"
    options = ["--models", "lightgcn", "--steps", "2", "--fan-out", "2", "--threads", "1"]
    for _ in range(2):  # the second finds its row and does nothing
        growth.main(["--interactions", "4000", *options, "--out", str(out)])
    growth.main(["--items", "500", "--threads", "1", "--out", str(out)])
    training, items = growth.read_rows(out)
    assert all(training.values())
    assert float(training["step_s"]) > float(training["sampling_s"]) > 0
    assert (items["what"], items["items"]) == ("item graph", "500")
    assert "item graph" in capsys.readouterr().out
