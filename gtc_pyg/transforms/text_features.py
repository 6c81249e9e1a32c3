r"""Dense item content from words, without a model to download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gtc_pyg.functional import check_least, takes_numbers
from gtc_pyg.transforms.text_words import words as words_of


@takes_numbers
def tfidf_embedding(
    texts: Sequence[str], dim: int = 256, min_count: int = 2, seed: int = 0
) -> Tensor:
    r"""Embeds texts by the leading singular vectors of their TF-IDF matrix.

    Word :math:`w` (:func:`~gtc_pyg.transforms.text_words.words`: a run of letters, digits and
    underscores of any script, without case; n-grams where words have no spaces between them) that
    stands :math:`c_{iw}` times in text :math:`i` and occurs in :math:`d_w` of the :math:`N` texts
    weighs

    .. math::
        A_{iw} = (1 + \log c_{iw}) \left(1 + \log \frac{1 + N}{1 + d_w}\right)

    and rows of :math:`A` are brought to length 1. With its truncated singular value decomposition
    :math:`A \approx U S V^\top` the result is :math:`U S`, again with rows of length 1. This is
    latent semantic analysis. It knows words alone, not what they mean, and needs nothing but SciPy;
    10,000 texts of 80 words take about a minute on one core. The sign of a column of :math:`V` is
    the one that makes its largest entry (in absolute value) positive, and the solver starts from a
    vector drawn from :obj:`seed`: equal input gives equal output.

    Args:
        texts (sequence of str): One text per item.
        dim (int): The number of columns. Where the texts are too few or too alike for so many, the
            last ones are zero. (default: :obj:`256`)
        min_count (int): Words in fewer texts than this are left out. (default: :obj:`2`)
        seed (int): Seed of the start vector. (default: :obj:`0`)

    Returns:
        Tensor: ``[len(texts), dim]``, float32. Rows of texts without a word that counts are zero.

    Raises:
        ImportError: If SciPy is missing.
        ValueError: If :obj:`dim` or :obj:`min_count` is less than 1, a text is no string, or no
            word is left.
    """
    check_least(1, dim=dim, min_count=min_count)
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import svds
    except ImportError as error:
        raise ImportError('tfidf_embedding needs SciPy: pip install "gtc-pyg[data]"') from error

    wrong = next(((i, text) for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(
            f"'texts' must hold strings (row {wrong[0]} is {wrong[1]!r}); an empty one stands for "
            f"none: of a pandas column fillna('')"
        )
    counts = [Counter(words_of(text)) for text in texts]
    frequency = Counter(word for count in counts for word in count)
    words = sorted(word for word, n in frequency.items() if n >= min_count)
    if not words:
        raise ValueError(
            f"'texts' must share words: none of {len(frequency)} is in {min_count} or more of the "
            f"{len(counts)} texts"
        )
    column = {word: index for index, word in enumerate(words)}
    kept = [{column[word]: n for word, n in count.items() if word in column} for count in counts]
    row = np.repeat(np.arange(len(kept)), [len(count) for count in kept])
    col, number = (
        np.fromiter((x for count in kept for x in part(count)), np.int64)
        for part in (dict.keys, dict.values)
    )
    inverse = 1 + np.log((1 + len(texts)) / (1 + np.array([frequency[word] for word in words])))
    weight = (1 + np.log(number)) * inverse[col]
    length = np.sqrt(np.bincount(row, weight**2, minlength=len(texts)))
    matrix = csr_array((weight / length[row], (row, col)), shape=(len(texts), len(words)))

    if dim < min(matrix.shape) / 2:
        start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
        u, s, vt = svds(matrix, k=dim, v0=start)
    else:
        u, s, vt = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-s, kind="stable")[:dim]
    order = order[s[order] > 1e-9 * s.max()]
    largest = np.abs(vt).argmax(axis=1)[order]
    signed = s[order] * np.where(vt[order, largest] < 0, -1.0, 1.0)
    out = np.zeros((len(texts), dim))
    out[:, : order.size] = u[:, order] * signed
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    out = np.divide(out, norm, out=np.zeros_like(out), where=norm > 1e-9)
    return torch.from_numpy(out.astype(np.float32))
