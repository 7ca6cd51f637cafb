"""Words of scripts that put no blanks between them: Chinese, Japanese, Thai, Lao, Burmese and Khmer; and of Korean,
whose nouns are written in one with their particles.

A run of such letters is indexed as the pairs of its neighbours (bigrams), Chinese characters one by one too, as no word
list is needed for them and they find about as much as words do (Nie et al., 2000). Other text is left as it is.
"""

from __future__ import annotations

import re
from itertools import pairwise

from firsthand.system.unspaced_scripts import HAN, KANA, SOUTHERN

_RUN = re.compile(f"[{HAN}{KANA}{SOUTHERN}]+")
_HANGUL = "\uac00-\ud7a3"
_RUN_OR_HANGUL = re.compile(f"{_RUN.pattern}|[{_HANGUL}]+")
_CHARACTER = re.compile(f"[{HAN}]")


def has_unspaced(text: str) -> bool:
    """True if a text has letters of a script without blanks; Korean has blanks."""
    return not text.isascii() and _RUN.search(text) is not None


def spaced(text: str, *, hangul: bool = True) -> str:
    """The text with blanks between the words of runs of such letters; without any it is the same text."""
    runs = _RUN_OR_HANGUL if hangul else _RUN
    return text if text.isascii() else runs.sub(lambda run: f" {' '.join(_words(run[0]))} ", text)


def _words(run: str) -> list[str]:
    """Its pairs of letters and its Chinese characters; marks, such as vowels below a letter, are no part of words."""
    letters = run if run.isalnum() else "".join(filter(str.isalnum, run))
    pairs = [one + other for one, other in pairwise(letters)]
    return [*pairs, *_CHARACTER.findall(letters)] if pairs else [letters]
