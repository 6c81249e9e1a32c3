from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import ridge_predictions, spectral_items
from gtc_pyg.imputation.fill_conditions import FillConditions, content_to_fill
from tests.imputation.fillers import NUM_ITEMS, NUM_USERS, planted


def encode(x: Tensor) -> Tensor:
    return F.normalize(x - x.mean(dim=0), dim=1)


def given(features: dict[str, Tensor], edge_index: Tensor) -> FillConditions:
    like = torch.zeros(20)
    return FillConditions.of(features, "text", encode, like, edge_index, NUM_USERS, 5, 8)


def test_a_condition_is_two_regressions_of_the_encoded_content() -> None:
    features, edge_index, _ = planted()
    out, mask = given(features, edge_index), features["has_text"]
    x = encode(torch.where(mask.view(-1, 1), features["text"], 0.0))
    torch.testing.assert_close(out.x, x)
    audio = features["audio"] - features["audio"].mean(dim=0)
    axes = torch.linalg.svd(audio, full_matrices=False).Vh[:5]
    products = F.normalize(audio @ axes.t(), dim=1)  # signs of axes are free, products are not
    torch.testing.assert_close(
        out.others @ out.others.t(), products @ products.t(), atol=1e-4, rtol=1e-4
    )
    spectral = spectral_items(edge_index, NUM_USERS, NUM_ITEMS, 8).to(x)
    expected = [ridge_predictions(z, x, mask) for z in (spectral, out.others)]
    torch.testing.assert_close(out.outside(mask), torch.cat(expected, dim=1))


def test_no_row_sees_itself_while_it_is_trained() -> None:
    features, edge_index, _ = planted()
    mask, row = features["has_text"], int(features["has_text"].nonzero()[5])
    fold = torch.arange(NUM_ITEMS) % 4
    out = given(features, edge_index)
    changed = out._replace(x=out.x.index_fill(0, torch.tensor([row]), 10.0))
    conds = [x.by_folds(mask, fold) for x in (out, changed)]
    moved = (conds[0] - conds[1]).abs().amax(dim=1) > 1e-6
    assert not moved[fold == fold[row]].any()
    assert moved[mask & (fold != fold[row])].any()
    assert (conds[0][~mask] == 0).all()


def test_a_fold_is_seen_from_the_other_folds() -> None:
    features, edge_index, _ = planted()
    mask, fold = features["has_text"], torch.arange(NUM_ITEMS) % 3
    out = given(features, edge_index)
    conds = out.by_folds(mask, fold)
    for f in range(3):
        rows = mask & (fold == f)
        assert torch.equal(conds[rows], out.outside(mask & (fold != f))[rows])


def test_conditions_of_absent_rows_come_from_present_ones_alone() -> None:
    features, edge_index, text = planted()
    mask = features["has_text"]
    conds = [given(f, edge_index).outside(mask) for f in (features, features | {"text": text})]
    assert torch.equal(*conds)


def test_without_another_modality_its_half_is_zero() -> None:
    features, edge_index, _ = planted(others=False)
    out = given(features, edge_index)
    assert out.others.shape == (NUM_ITEMS, 0)
    cond = out.outside(features["has_text"])
    assert cond[:, :20].abs().sum() > 0 and (cond[:, 20:] == 0).all()


def test_absent_rows_of_another_modality_count_as_its_mean() -> None:
    features, edge_index, _ = planted()
    has = torch.arange(NUM_ITEMS) % 3 > 0
    for value in (0.0, float("nan"), 7.0):
        audio = torch.where(has.view(-1, 1), features["audio"], value)
        out = given(features | {"audio": audio, "has_audio": has}, edge_index)
        assert (out.others[~has] == 0).all()
        torch.testing.assert_close(out.others[has].norm(dim=1), torch.ones(int(has.sum())))


def test_content_to_fill_has_zeros_where_absent() -> None:
    features, _, text = planted()
    x, mask = content_to_fill(features, "text", torch.zeros(20, dtype=torch.double))
    assert x.dtype == torch.double and torch.equal(mask, features["has_text"])
    assert torch.equal(x, torch.where(mask.view(-1, 1), text, 0.0).double())
