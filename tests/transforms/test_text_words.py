from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtc_pyg.transforms.text_words import words

FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
ALPHABETS = {  # letters with their marks; words stand apart
    "Hindi": ["कि", "ता", "ब", "लम", "कु", "र्सी", "म", "रा", "क्षि", "ज़"],
    "Tamil": ["தமி", "ழ்", "பு", "த்", "க", "ம்"],
    "Hebrew": ["שָׁ", "לוֹ", "ם", "בַּ", "יִת"],
    "Arabic": ["كِ", "تَا", "ب", "مَ", "لّ"],
    "Vietnamese": ["tiế", "ng", "vi", "ệt", "ước"],
    "Korean": ["한", "국", "어", "문", "장"],
    "Greek": ["ά", "λφ", "ΐ", "ώ"],
    "Russian": ["й", "ё", "ж", "ъ"],
    "Dhivehi": ["ދި", "ވެ", "ހި"],
    "Amharic": ["አ", "ማ", "ርኛ"],
}
NO_SPACES = {
    "Thai": ["ภา", "ษา", "ไทย", "ที่"],
    "Lao": ["ລາ", "ວ", "ພາ"],
    "Khmer": ["ខ្មែ", "រ", "ភា"],
    "Burmese": ["မြ", "န်", "မာ"],
    "kana": ["ケ", "ー", "ス", "が", "ぽ"],
    "Chinese": ["手", "機", "殼", "𠮷"],
}


@given(st.text(st.characters(max_codepoint=127)))
@settings(max_examples=50)
def test_words_of_ascii_are_runs_of_letters(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.lower())


@given(st.text(), st.sampled_from(FORMS))
@settings(max_examples=300)
def test_every_unicode_form_has_the_same_words(text: str, form: str) -> None:
    assert words(unicodedata.normalize(form, text)) == words(text)


@given(st.text(st.sampled_from("aÀéñ Ǆßﬀ²①ｱガが각ΐ\u0301\u0345\u0327ﬁⅧ㍿कि़ที่")))
@settings(max_examples=300)
def test_forms_of_letters_with_marks_have_the_same_words(text: str) -> None:
    assert len({tuple(words(unicodedata.normalize(form, text))) for form in FORMS}) == 1


@given(st.data(), st.sampled_from(list(ALPHABETS)))
@settings(max_examples=200)
def test_a_word_stays_whole_in_every_script(data: st.DataObject, script: str) -> None:
    word = st.lists(st.sampled_from(ALPHABETS[script]), min_size=1, max_size=4).map("".join)
    given = data.draw(st.lists(word, min_size=1, max_size=5))
    found = words(" ".join(given))
    assert len(found) == len(given)
    for i, one in enumerate(given):
        assert words(one) == [found[i]]
        assert [found[i] == other for other in found] == [one == other for other in given]


@pytest.mark.parametrize("script", NO_SPACES)
@given(st.data())
@settings(max_examples=30)
def test_a_word_is_found_inside_a_run_without_spaces(script: str, data: st.DataObject) -> None:
    part = st.lists(st.sampled_from(NO_SPACES[script]), min_size=3, max_size=5).map("".join)
    before, word, after = (data.draw(part) for _ in range(3))
    assert set(words(word)) <= set(words(before + word + after))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème BRÛLÉE", ["crème", "brûlée"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("किताब कलम", ["किताब", "कलम"]),
        ("手機殼 iPhone用", ["手", "機", "殼", "手機", "機殼", "iphone", "用"]),
        ("茶", ["茶"]),
        ("お茶", ["お", "茶"]),
        ("ケース", ["ケー", "ース", "ケース"]),
        ("ｹｰｽ", ["ケー", "ース", "ケース"]),
        ("ที่นี่", ["ที่นี่"]),
        ("می‌خواهم", ["میخواهم"]),
        ("co\u00adoperate café", ["cooperate", "café"]),
        ("༢ བོད་ཡིག", ["༢", "བོད", "ཡིག"]),
        ("❤\ufe0f 👍🏽 \u0301", []),
        ("\ud800x é", ["x", "é"]),
        ("", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected
