"""Text of scripts without blanks, divided into words that can be compared: Chinese, Japanese, Thai, Lao, Burmese and Khmer.

Chinese characters between the smallest function words are pairs of neighbours, as in the index; Japanese syllables are
pairs within their script, a word of katakana is whole; letters of Thai and its neighbours, which are few, are triples
without marks. Numbers stand alone: with 万, 億 and the like they are written out, and with 月 and 日 they are a date's.
"""

from __future__ import annotations

import re
from decimal import Decimal

from firsthand.retrieval.store.unspaced_words import has_unspaced
from firsthand.system.normalised_text import normalised_text
from firsthand.system.unspaced_scripts import HAN, KANA, SOUTHERN

_WIDE = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
_WIDE_COMMA = re.compile("(?<=[０-９])，(?=[０-９]{3}(?![０-９]))")
_WIDE_POINT = re.compile("(?<=[０-９])．(?=[０-９])")
_TIMES = {"百": 2, "千": 3, "万": 4, "萬": 4, "億": 8, "亿": 8, "兆": 12}
_UNIT = r"[百千]?[万萬億亿]|百(?!分)|千(?![克米瓦卡字赫焦帕伏安升公])|兆(?![瓦赫字焦帕欧比位])"
_FIGURE = r"(?:\d{1,3}(?:,\d{3}){1,4}(?![\d,])|\d{1,15})(?:\.\d{1,9})?"
_AMOUNT = re.compile(rf"(?<![\d.,/:^]){_FIGURE} ?(?:{_UNIT})(?:\d{{1,4}}(?:{_UNIT})){{0,3}}(?:\d{{1,4}}(?![\d.,]))?")
_ADDEND = re.compile(rf"({_FIGURE}) ?({_UNIT})?")
_DATE_NUMBER = re.compile(
    r"(?<![\d.,/:^])0?(\d{1,2})(?=(?: ?[-\u2010-\u2015~～〜至到、和与及と] ?\d{1,2}){0,6} ?([月日]))(?: ?[月日])?+"
)
_RANGE = re.compile(rf"(\d[{HAN}{KANA}]{{0,2}})[-\u2010-\u2015\u2212](?=\d)")
_RUN = re.compile(f"[{HAN}{KANA}{SOUTHERN}]+")
_HIRAGANA = "\u3041-\u309f"
_PART = re.compile(
    f"(?P<han>[{HAN}]+)|(?P<hiragana>[{_HIRAGANA}][{_HIRAGANA}ー]*+)|(?P<southern>[{SOUTHERN}]+)"
    f"|(?P<katakana>[^{HAN}{_HIRAGANA}{SOUTHERN}]+)"
)
_FUNCTION = re.compile("[的是了在和与與及或为為也就被把之很吗呢吧]")
_ENDINGS = frozenset(re.findall("..", "ですでししたますましませせんでああるいるいまていってれてられこと"))
"""Pairs of the Japanese copula and of the forms of verbs, which any two sentences share."""
_THAI_FUNCTION = re.compile("เป็น|ที่|ของ|และ|คือ|ใน")


def divided(text: str) -> str:
    """The text with blanks between the words of its unspaced scripts, without their function words; other text, and a text
    without such letters, is the same."""
    if not has_unspaced(text):
        return text
    text = _WIDE_POINT.sub(".", _WIDE_COMMA.sub(",", text)).translate(_WIDE)
    text = _RANGE.sub(r"\1 ～ ", text)
    text = _DATE_NUMBER.sub(r" \1\2 ", _AMOUNT.sub(_written_out, text))
    return _RUN.sub(_words, text)


def _written_out(found: re.Match[str]) -> str:
    """`2189万` as ` 21890000 `, `1億4000万` as ` 140000000 `; where units do not fall another number begins."""
    totals: list[Decimal] = []
    least = 0
    for number, unit in _ADDEND.findall(found[0]):
        value, power = Decimal(number.replace(",", "")), sum(_TIMES[each] for each in unit)
        value = value.scaleb(power)
        if totals and value < Decimal(1).scaleb(least):
            totals[-1] += value
        else:
            totals.append(value)
        least = power
    return "".join(f" {total.normalize():f} " for total in totals)


def _words(run: re.Match[str]) -> str:
    text = run[0]
    if run.start() and run.string[run.start() - 1].isdigit() and text in ("月", "日"):
        return text  # of a date's number
    words: list[str] = []
    for found in _PART.finditer(text):
        part = found[0]
        if found["han"]:
            words += [word for each in _FUNCTION.split(part) if each for word in _grams([*each], 2)]
        elif found["hiragana"]:
            words += [word for word in _grams([*part], 2) if len(word) > 1 and word not in _ENDINGS]
        elif found["southern"]:
            words += [
                word for each in _THAI_FUNCTION.split(part) if each for word in _grams([*filter(str.isalnum, each)], 3)
            ]
        else:
            words.append(normalised_text("NFKC", part).rstrip("ー"))
    return f" {' '.join(words)} "


def _grams(letters: list[str], size: int) -> list[str]:
    """Its runs of `size` letters; a shorter text is one."""
    return ["".join(letters[start : start + size]) for start in range(max(1, len(letters) - size + 1))]
