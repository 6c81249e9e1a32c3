from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.imputation import ModalityFiller
from tests.imputation.fillers import NUM_ITEMS, NUM_USERS, OPTIONS, fitted, planted
from tests.models.graphs import seeded


def cosine(filled: dict[str, Tensor], features: dict[str, Tensor], text: Tensor) -> float:
    mask = features["has_text"]
    mean = text[mask].mean(0)
    return float(F.cosine_similarity(filled["text"][~mask] - mean, text[~mask] - mean).mean())


def test_interactions_and_other_modalities_both_help() -> None:
    found = {}
    for others, taste in [(True, True), (False, True), (True, False), (False, False)]:
        features, edge_index, text = planted(others, taste)
        filler = fitted(features, edge_index, epochs=40)
        filled = filler(features, edge_index, NUM_USERS, generator=seeded(3))
        found[others, taste] = cosine(filled, features, text)
    assert found[True, True] > max(found[False, True], found[True, False]) + 0.05, found
    assert min(found[False, True], found[True, False]) > 0.3, found
    assert abs(found[False, False]) < 0.15, found


def test_present_rows_stay_and_absent_ones_are_filled() -> None:
    features, edge_index, _ = planted()
    before = {key: x.clone() for key, x in features.items()}
    filled = fitted(features, edge_index, epochs=2)(features, edge_index, NUM_USERS)
    mask = features["has_text"]
    assert list(filled) == ["text", "audio"]
    assert torch.equal(filled["text"][mask], features["text"][mask])
    assert torch.equal(filled["audio"], features["audio"])
    assert filled["text"].isfinite().all()
    for key, x in before.items():
        torch.testing.assert_close(features[key], x, equal_nan=True, rtol=0, atol=0)


def test_decoding_undoes_encoding_up_to_the_distance() -> None:
    x = torch.randn(50, 9, generator=seeded(3)) * 1e-3 + 4
    features = {"text": x, "has_text": torch.ones(50, dtype=torch.bool)}
    filler = ModalityFiller("text", 9, channels=16, hidden_channels=8, spectral_channels=2)
    edge_index = torch.stack([torch.arange(50) % 7, torch.arange(50)])
    filler.fit(features, edge_index, 7, epochs=1)
    away = x - x.mean(0)
    decoded = filler.decode(filler.encoder(x)) - x.mean(0)
    assert F.cosine_similarity(decoded, away).min() > 0.999
    length = away.norm(dim=1).mean().expand(50)
    torch.testing.assert_close(decoded.norm(dim=1), length, rtol=1e-2, atol=0)


def test_the_seed_decides_all_and_global_state_stays() -> None:
    features, edge_index, _ = planted()
    state = torch.get_rng_state()
    fills = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(fills))
        filler = fitted(features, edge_index, epochs=4, seed=seed)
        fills.append(filler(features, edge_index, NUM_USERS, generator=seeded(3))["text"])
        assert torch.random.initial_seed() == len(fills) - 1
    torch.set_rng_state(state)
    assert torch.equal(fills[0], fills[1])
    assert not torch.equal(fills[0], fills[2])


def test_a_saved_filler_fills_the_same() -> None:
    features, edge_index, _ = planted()
    filler = fitted(features, edge_index, epochs=4)
    other = ModalityFiller("text", 20, **OPTIONS)
    other.load_state_dict(filler.state_dict())
    fills = [
        f(features, edge_index, NUM_USERS, generator=seeded(3))["text"] for f in (filler, other)
    ]
    assert torch.equal(*fills)


def test_the_epoch_that_generated_held_out_rows_best_is_kept() -> None:
    features, edge_index, _ = planted()
    history = fitted(features, edge_index, epochs=25).history
    assert history is not None
    assert history.epochs == [10, 20, 25]
    assert history.best_epoch == history.epochs[history.cosine.index(max(history.cosine))]


def test_the_loss_is_the_velocitys_error_and_trains_all() -> None:
    filler = ModalityFiller("text", 20, **OPTIONS)
    x, cond = torch.randn(5, 16), torch.randn(5, filler.denoiser.cond_channels)
    loss = filler.loss(x, cond, seeded(3))
    g = seeded(3)
    t, noise = filler.schedule.sample_times(5, g), filler.schedule.sample_noise(x, g)
    total = 0.0
    for i in range(5):
        a = filler.schedule.alpha_bar[t[i]]
        x_t = a.sqrt() * x[i] + (1 - a).sqrt() * noise[i]
        out = filler.denoiser.noise(filler.denoiser.hidden(x_t[None], t[i], cond[i][None]))[0]
        target = a.sqrt() * noise[i] - (1 - a).sqrt() * x[i]
        total = total + (out - target).pow(2).mean() / 5
    torch.testing.assert_close(loss, total)
    loss.backward()
    for name, parameter in filler.named_parameters():
        assert name.startswith("encoder") or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "'features' lacks 'text'"),
        ({"has_text": None}, "'features' lacks 'has_text'"),
        ({"text": torch.ones(NUM_ITEMS, 3)}, r"'text' as \[I, 20\] \(got \[200, 3\]\)"),
        ({"audio": torch.ones(7, 3)}, r"200 rows of 'audio' \(got 7\)"),
        ({"has_text": torch.ones(NUM_ITEMS)}, "'has_text' as bool"),
        ({"has_text": torch.ones(NUM_ITEMS, dtype=torch.bool)}, "'text' that are not finite"),
        ({"text": torch.ones(NUM_ITEMS, 20)}, "the same 'text' for all"),
        (
            {"audio": torch.full((NUM_ITEMS, 3), torch.nan)},
            "'audio' that are not finite.*has_audio",
        ),
        ({"has_text": torch.arange(NUM_ITEMS) < 3, "text": torch.ones(NUM_ITEMS, 20)}, r"got 3"),
    ],
)
def test_content_that_does_not_fit_is_named(change: dict, message: str) -> None:
    features, edge_index, _ = planted()
    features = {key: x for key, x in (features | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        fitted(features, edge_index, epochs=1)


@pytest.mark.parametrize("name", ["in_channels", "channels", "spectral_channels"])
def test_sizes_too_small_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must be at least . .got 0."):
        ModalityFiller(**({"modality": "text", "in_channels": 20} | {name: 0}))


def test_a_filler_that_was_not_fitted_says_so() -> None:
    features, edge_index, _ = planted()
    with pytest.raises(ValueError, match="call fit"):
        ModalityFiller("text", 20, **OPTIONS)(features, edge_index, NUM_USERS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_users": 10}, "'edge_index' holds user 59, expected 0 to 9"),
        ({"edge_index": torch.tensor([[0], [NUM_ITEMS]])}, f"'edge_index' holds item {NUM_ITEMS}"),
        ({"edge_index": torch.eye(NUM_USERS)}, r"'edge_index' must be \[2, E\]"),
        ({"epochs": 0}, "'epochs' must be at least 1"),
        ({"num_folds": 1}, "'num_folds' must be at least 2"),
        ({"holdout": 1.0}, r"'holdout' must lie in \(0, 1\)"),
    ],
)
def test_arguments_of_fit_that_do_not_fit_are_named(given: dict, message: str) -> None:
    features, edge_index, _ = planted()
    arguments = {"edge_index": edge_index, "num_users": NUM_USERS, "epochs": 1} | given
    with pytest.raises(ValueError, match=message):
        ModalityFiller("text", 20, **OPTIONS).fit(features, **arguments)


def test_the_last_training_has_the_length_that_was_best(monkeypatch: pytest.MonkeyPatch) -> None:
    features, edge_index, _ = planted()
    epochs, cosines = [], iter([0.3, 0.9, 0.1])
    train = ModalityFiller._train_epoch
    monkeypatch.setattr(
        ModalityFiller, "_train_epoch", lambda self, *args: epochs.append(1) or train(self, *args)
    )
    monkeypatch.setattr(F, "cosine_similarity", lambda *_, **__: torch.tensor(next(cosines)))
    history = fitted(features, edge_index, epochs=30).history
    assert history is not None and history.best_epoch == 20
    assert len(epochs) == 30 + 20


def test_double_content_is_filled_and_stays_double() -> None:
    features, edge_index, _ = planted()
    features = {key: x.double() if x.is_floating_point() else x for key, x in features.items()}
    filler = fitted(features, edge_index, epochs=2)
    filled = filler(features, edge_index, NUM_USERS)["text"]
    mask = features["has_text"]
    assert filled.dtype == torch.double and filled.isfinite().all()
    assert torch.equal(filled[mask], features["text"][mask])


def test_weights_that_are_not_finite_are_no_result() -> None:
    features, edge_index, _ = planted()
    with pytest.raises(FloatingPointError, match=r"^epoch [23]: .* not finite; a lower 'lr'"):
        ModalityFiller("text", 20, **OPTIONS).fit(
            features, edge_index, NUM_USERS, epochs=3, lr=1e30, batch_size=NUM_ITEMS
        )


@pytest.mark.parametrize("form", [np.int64, np.array, torch.tensor], ids=["numpy", "0-d", "torch"])
def test_numbers_of_any_kind_are_settings(form) -> None:
    features, edge_index, _ = planted()
    fillers = [
        ModalityFiller("text", kind(20), **{name: kind(n) for name, n in OPTIONS.items()}).fit(
            features, edge_index, kind(NUM_USERS), epochs=kind(3), num_folds=kind(4), seed=kind(1)
        )
        for kind in (int, form)
    ]
    for x, y in zip(*(filler.state_dict().values() for filler in fillers), strict=True):
        assert torch.equal(x, y)
