from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
import torch

from gtc_pyg.transforms.text_features import tfidf_embedding

TEXTS = [
    "Red case, red cover",
    "red case",
    "A blue CASE & a blue charger",
    "blue charger",
    "",
    "unique",
    "cover for the charger",
]


def tfidf(texts: list[str], min_count: int) -> np.ndarray:
    """The matrix, word by word, straight from the equation."""
    words = [
        "".join(c if c.isalnum() or c == "_" else " " for c in t.lower()).split() for t in texts
    ]
    vocabulary = sorted({w for row in words for w in row})
    number = {w: sum(w in row for row in words) for w in vocabulary}
    vocabulary = [w for w in vocabulary if number[w] >= min_count]
    out = np.zeros((len(texts), len(vocabulary)))
    for i, row in enumerate(words):
        for j, w in enumerate(vocabulary):
            if w in row:
                inverse = 1 + math.log((1 + len(texts)) / (1 + number[w]))
                out[i, j] = (1 + math.log(row.count(w))) * inverse
        length = math.sqrt(sum(x * x for x in out[i]))
        out[i] = out[i] / length if length else 0.0
    return out


def cosines(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(length > 0, length, 1)
    return x @ x.T


@pytest.mark.parametrize("min_count", [1, 2])
def test_with_all_columns_cosines_are_those_of_the_words(min_count: int) -> None:
    x = tfidf_embedding(TEXTS, dim=16, min_count=min_count)
    assert x.shape == (7, 16) and x.dtype == torch.float32
    np.testing.assert_allclose(cosines(x.numpy()), cosines(tfidf(TEXTS, min_count)), atol=1e-6)
    empty = [4] if min_count == 1 else [4, 5]
    assert (x.norm(dim=1) == 0).nonzero().flatten().tolist() == empty


def test_fewer_columns_are_the_best_low_rank_approximation() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 40, 12)) for _ in range(60)]
    matrix = tfidf(texts, 2)
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    for dim in (5, 30):  # by the sparse solver and by the dense one
        x = tfidf_embedding(texts, dim=dim).numpy()
        np.testing.assert_allclose(cosines(x), cosines(u[:, :dim] * s[:dim]), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)


def test_output_is_the_same_for_any_order_of_the_items() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 50, 9)) for _ in range(80)]
    x = tfidf_embedding(texts, dim=6)
    assert torch.equal(x, tfidf_embedding(texts, dim=6))
    order = rng.permutation(80)
    shuffled = tfidf_embedding([texts[i] for i in order], dim=6)
    torch.testing.assert_close(shuffled, x[order.copy()], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (TEXTS, {"dim": 0}, r"'dim' must be at least 1 \(got 0\)"),
        (TEXTS, {"min_count": 0}, r"'min_count' must be at least 1 \(got 0\)"),
        (["a b", "c"], {}, r"'texts' must share words: none of 3 is in 2 or more of the 2 texts"),
        (["", " "], {"min_count": 1}, r"none of 0 is in 1 or more of the 2 texts"),
    ],
)
def test_bad_input_is_named(texts: list[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfidf_embedding(texts, **options)


def test_what_is_no_text_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 1 is nan\); an empty one stands for none"):
        tfidf_embedding(["a tea", float("nan")])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "words", [["कि", "की", "कु", "के"], ["किताब", "कलम", "कुर्सी", "कमरा"], ["தமி", "தமு"], ["שָׁ", "שֶׁ"]]
)
def test_different_words_of_any_script_are_orthogonal(words: list[str]) -> None:
    x = tfidf_embedding(words * 2, dim=8).numpy()
    np.testing.assert_allclose(cosines(x), np.tile(np.eye(len(words)), (2, 2)), atol=1e-6)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_texts_of_every_unicode_form_are_embedded_alike(form: str) -> None:
    texts = [
        "café crème",
        "Crème brûlée",
        "한국어 café",
        "ｶﾞﾗｽ",
        "ガラスの家",
        "किताब क़लम",
        "क़लम 한국어",
    ]
    given = [unicodedata.normalize(form, text) if i % 2 else text for i, text in enumerate(texts)]
    assert torch.equal(tfidf_embedding(given, dim=8), tfidf_embedding(texts, dim=8))


@pytest.mark.parametrize(
    ("texts", "near", "far"),
    [
        (["手機保護殼黑色", "黑色手機殼", "不鏽鋼茶壺", "玻璃茶壺"], (0, 1), (0, 2)),
        (["スマホケース", "透明ケース", "緑茶の急須", "紅茶と急須"], (2, 3), (1, 2)),
        (["เคสโทรศัพท์มือถือ", "โทรศัพท์บ้าน", "กาน้ำชา", "น้ำชาเย็น"], (0, 1), (0, 2)),
    ],
)
def test_parts_of_a_text_without_spaces_are_alike(texts, near, far) -> None:
    found = cosines(tfidf_embedding(texts, dim=8).numpy())
    assert found[near] > found[far] + 0.2
