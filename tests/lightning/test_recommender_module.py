import pytest
import torch
from torch.nn import Embedding, ModuleList

from gtc_pyg.evaluation import evaluate
from gtc_pyg.lightning import RecommenderModule
from gtc_pyg.models import LightGCN, SpectralFilter, SpectralHead


def test_mini_batches_are_seeded_and_reach_every_weight(
    dataset, tmp_path, sampling, make_gtc, train
):
    options = {"epochs": 2, "num_neighbors": sampling}
    runs = [
        train(make_gtc(dataset), dataset, tmp_path / str(i), **options, seed=i // 2)
        for i in range(3)
    ]
    first, second, other = (run.model.state_dict() for run in runs)
    start = make_gtc(dataset).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["item_emb.weight"], other["item_emb.weight"])
    still = {key for key in first if torch.equal(first[key], start[key])}
    assert still <= {"content_filter.sampler.schedule.alpha_bar"}


def test_sparse_tables_come_in_the_order_of_the_modules():
    tables = ModuleList(Embedding(2, 2) for _ in range(30))
    module = RecommenderModule(tables)
    module.automatic_optimization = False
    (optimizer,) = module.configure_optimizers()
    found = optimizer.param_groups[0]["params"]
    assert [id(p) for p in found] == [id(table.weight) for table in tables]


def test_a_mini_batch_moves_the_embeddings_it_touches_alone(dataset, tmp_path, sampling, train):
    model = LightGCN(dataset.num_users, dataset.num_items, 8)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    limit = {"trainer_kwargs": {"limit_train_batches": 1}}
    train(model, dataset, tmp_path, epochs=1, batch_size=1, num_neighbors=[1], **limit)
    tables = dict(model.named_parameters())
    moved = [int((x != before[key]).any(dim=1).sum()) for key, x in tables.items()]
    assert all(0 < num < 12 for num in moved)


def test_mini_batches_learn_what_the_whole_graph_learns(
    dataset, tmp_path, sampling, train, embed, labels
):
    recalls = []
    for i, num_neighbors in enumerate((None, sampling)):
        torch.manual_seed(0)
        model = LightGCN(dataset.num_users, dataset.num_items, 16)
        start = evaluate(*embed(model, dataset), labels(dataset, "val"), [labels(dataset, "train")])
        result = train(model, dataset, tmp_path / str(i), epochs=8, num_neighbors=num_neighbors)
        assert result.val["Recall@20"] > start["Recall@20"] + 0.05
        recalls.append(result.val["Recall@20"])
    assert abs(recalls[0] - recalls[1]) < 0.1


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda part: part * float("nan"), r"the loss is nan \(ranking nan, regularization \d"),
        (lambda part: part + float("inf"), r"the loss is inf \(ranking inf, "),
        (
            lambda part: part + Spiky.apply(part),
            r"the gradient of user_emb.weight, item_emb.weight",
        ),
    ],
)
def test_infinite_numbers_stop_training_before_the_weights(
    dataset, tmp_path, train, request, spoil, what, sampled
):
    class Spoiled(LightGCN):
        steps = 0

        def loss(self, *args, **kwargs):
            parts = super().loss(*args, **kwargs)
            Spoiled.steps += 1
            if Spoiled.steps == 1 + first:
                parts["ranking"] = spoil(parts["ranking"])
            return parts

    neighbors = request.getfixturevalue("sampling") if sampled else None
    num_batches = -(-dataset[0]["user", "rates", "item"].edge_index.size(1) // 64)
    for first, kept in ((0, "No weights were kept yet"), (num_batches + 1, r"in .*best.ckpt")):
        Spoiled.steps = 0
        model = Spoiled(dataset.num_users, dataset.num_items, 8)
        epoch, step = (1, 1) if first == 0 else (2, 2)
        message = rf"epoch {epoch}, step {step} of it: {what}.*{kept}"
        with pytest.raises(FloatingPointError, match=message):
            train(model, dataset, tmp_path / str(first), epochs=3, num_neighbors=neighbors)
        assert all(p.isfinite().all() for p in model.parameters())


class Spiky(torch.autograd.Function):
    """Zero, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x * 0

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


def test_heads_are_fitted_before_the_first_step(dataset, tmp_path, make_gtc, train):
    head = SpectralHead(channels=4)
    model = make_gtc(dataset, heads=[head])
    assert head.added_degree == 0
    with pytest.raises(RuntimeError, match="call the model's prepare"):
        model.training_graph(dataset[0].edge_index_dict, dataset[0].collect("edge_weight"))
    train(model, dataset, tmp_path, epochs=1)
    assert head.added_degree > 0 and bool(model.prepared)


def test_a_model_without_weights_is_ranked_at_once(dataset, tmp_path, train, embed, labels):
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    model = SpectralFilter(dataset.num_users, dataset.num_items, widths, 8, num_item_layers=1)
    result = train(model, dataset, tmp_path)
    assert result.best_epoch == 0 and not (tmp_path / "checkpoints").exists()
    for split, found in (("val", result.val), ("test", result.test)):
        known = [labels(dataset, "train")]
        expected = evaluate(*embed(result.model, dataset), labels(dataset, split), known)
        assert found == pytest.approx(expected, abs=1e-6)
    assert result.val["Recall@20"] > 0.5
