r"""The words of a text in any script and any Unicode form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_ASCII = re.compile(r"\w+")
_HAN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_NO_SPACES = re.compile(  # kana, bopomofo, and scripts of South East Asia
    "[\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3105-\u312f"
    "\u0e01-\u0e4e\u0e80-\u0ecd\u1000-\u109d\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17dd"
    "\u1950-\u1974\u1980-\u19c9\u1a00-\u1aad\uaa80-\uaadf\u1b00-\u1b4c\ua980-\ua9c0]"
)
_GRAMS = {"han": (1, 2), "no spaces": (2, 3)}
_IGNORED = dict.fromkeys(  # hyphens and joiners that are not seen, and variants of a letter
    [0xAD, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
)


def words(text: str) -> list[str]:
    r"""The words of a text, as often as they occur.

    A word is a run of letters, digits, underscores and the marks that belong to letters, without
    case. A script without spaces between words is read in n-grams: Chinese characters one and two
    at a time; kana, Thai, Lao, Khmer, Burmese and their like two and three letters at a time, each
    with its marks. All forms of Unicode (NFC, NFD, NFKC, NFKD) of a text have the same words.

    Example:
        >>> words("Crème brûlée, no. 3")
        ['crème', 'brûlée', 'no', '3']
        >>> words("手機 case")
        ['手', '機', '手機', 'case']
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    for _ in range(2):  # case can undo a form, and a form can bring capitals
        text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKC", text).translate(_IGNORED)
    return [word for kind, letters in _runs(text) for word in _words_of(kind, letters)]


def _runs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Letters of the same kind in a row, each with its marks."""
    kind_of_run, letters = "", [""]
    for letter in text:
        kind = _kind(letter)
        if kind == "mark" and kind_of_run:
            letters[-1] += letter
        elif kind == kind_of_run:
            letters.append(letter)
        else:
            if kind_of_run:
                yield kind_of_run, letters
            kind_of_run, letters = "" if kind == "mark" else kind, [letter]
    if kind_of_run:
        yield kind_of_run, letters


@cache
def _kind(letter: str) -> str:
    if unicodedata.category(letter).startswith("M"):
        return "mark"
    if _HAN.match(letter):
        return "han"
    if _NO_SPACES.match(letter):
        return "no spaces"
    return "word" if letter.isalnum() or letter == "_" else ""


def _words_of(kind: str, letters: list[str]) -> Iterator[str]:
    sizes = _GRAMS.get(kind)
    if sizes is None or len(letters) < sizes[0]:
        yield "".join(letters)
        return
    for size in sizes:
        for start in range(len(letters) - size + 1):
            yield "".join(letters[start : start + size])
