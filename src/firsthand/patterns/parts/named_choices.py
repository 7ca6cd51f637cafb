"""Marks the choices that a text names: every letter and every choice's text becomes one character.

What is read afterwards sees the place of a choice and not its letter, so that A is treated like B, C and D. Typography
(LaTeX, Markdown, quotation marks) is taken off first; a sign that changes a value is kept.
"""

from __future__ import annotations

import re

from firsthand.patterns.parts.value_words import folded
from firsthand.task import Task

LETTERS, TEXTS, MOST = 0xE000, 0xE800, 0x800
CHOICE = "[\ue000-\uefff]"
LETTER = "[\ue000-\ue7ff]"
TEXT = "[\ue800-\uefff]"
BOX, END_OF_BOX = "\uf000", "\uf001"

_FULL_WIDTH = str.maketrans(
    {chr(0xFEE0 + at): chr(at) for at in range(0x21, 0x7F)}
    | {"。": ". ", "’": "'", "‘": "'"}
    | dict.fromkeys("“”„«»", '"')
)
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|operatorname|mbox|bm)\s*\{([^{}]*)\}"
)
_SPECIAL = re.compile(r"<\|[\w|-]{1,40}\|>|(?:</s>|<eos>|<end_of_turn>)\s*\Z")
_SPACE = re.compile(r"\\(?:[ ,;:!]|quad\b|qquad\b)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+)\}")
_TAGGED = re.compile(r"<(answer|final_answer|choice)>([^<>]*)</\1>", re.IGNORECASE)
_FIELD = re.compile(r"\"(?:final_?)?(?:answer|choice)(?:_?letter)?\"\s*:\s*\"([^\"\n]*)\"\s*(?=[,}\n])", re.IGNORECASE)
_TYPOGRAPHY = re.compile(
    r"\\[()\[\]]|\\?\$|[`\"]|(?<![\w)\]}])\*{1,3}|\*{1,3}(?![\w(])|(?<!\w)_{1,3}|_{1,3}(?!\w)|(?<!\w)'|'(?!\w)"
    r"|(?m:^[ \t]*(?:>[ \t]*)+)"
)
_EDGE = r"0-9A-Za-z\u00c0-\u052f"
_KIND = r"(?:answer[ \t]+)?(?:option|choice|letter|answer|alternative)"
_LETTER = re.compile(
    rf"(?<![{_EDGE}'])(?P<kind>{_KIND}(?:[ \t]+|-))?(?P<open>[(\[]{{1,2}})?(?P<letter>[A-Za-z])(?![{_EDGE}'])"
    r"(?P<close>(?(open)[)\]]{1,2}|))",
    re.IGNORECASE,
)
# Before another word `A` is an article and `I` a pronoun, unless the word is one that goes on from a choice.
_GOES_ON = re.compile(
    r"[ \t]*(?:$|[^\w\s'])|\s*\n|[ \t]+(?:[\ue000-\uefff]|[B-HJ-Z]\b|(?:is|was|are|seems?|appears?|looks"
    r"|must|would|should|has|does|can"
    r"|cannot|could|might|may|will|isn't|wasn't|doesn't|fits|works|wins|matches|holds|follows|satisfies"
    r"|remains|it[ \t]+is"
    r"|because|since|as|for|in|from|under|based|according|due|given|by|here|which|while|whereas|and|or"
    r"|nor|but|not|rather|instead|over|than|then|plus"
    r"|fails|misses|ignores|clearly|definitely|certainly|also|too|with|only)\b)",
)


def plain(text: str) -> str:
    """Return the text without typography, on whose lines a box of LaTeX is between BOX and END_OF_BOX.

    A field of JSON and a tag are a box on a line of its own.
    """
    text = _PRIVATE.sub("", folded(text.translate(_FULL_WIDTH)))
    text = _SPECIAL.sub("", text).replace("{,}", ",")
    for _ in range(3):
        text = _WRAPPED.sub(r"\1", text)
    text = _SPACE.sub(" ", text)
    text = _BOXED.sub(rf"{BOX}\1{END_OF_BOX}", text)
    text = _TAGGED.sub(rf"\n\n{BOX}\2{END_OF_BOX}\n\n", text)
    text = _FIELD.sub(rf"\n\n{BOX}\1{END_OF_BOX}\n\n", text)
    return re.sub(r"[^\S\n]+", " ", _TYPOGRAPHY.sub("", text))


def marked(text: str, task: Task) -> str:
    """Return plain text with one character for each choice that it names, the longest that fits."""
    texts: dict[str, int] = {}
    for at, choice in enumerate(task.choices[:MOST]):
        quote = " ".join(plain(choice).split()).strip(" .")
        if quote and not (len(quote) == 1 and quote.upper() in task.letters):
            texts[_key(quote)] = -1 if _key(quote) in texts else at
    if texts:
        shapes = "|".join(_shape(quote) for quote in sorted(texts, key=len, reverse=True))

        def text_mark(found: re.Match[str]) -> str:
            said = _key(" ".join(found[0].split()))
            at = next((texts[each] for each in (said, said[:-1], said[:-2]) if each in texts), -1)
            return found[0] if at < 0 else chr(TEXTS + at)

        text = re.sub(shapes, text_mark, text, flags=re.IGNORECASE)

    def letter_mark(found: re.Match[str]) -> str:
        letter = found["letter"].upper()
        if letter not in task.letters:
            return found[0]
        named = bool(found["kind"]) and (found["letter"] not in "ai" or _GOES_ON.match(text, found.end()) is not None)
        if not named and not found["letter"].isupper():
            return found[0]
        if letter in "AI" and not found["open"] and not _GOES_ON.match(text, found.end()):
            return found[0]
        return chr(LETTERS + task.letters.index(letter))

    return _LETTER.sub(letter_mark, text)


def lettered(written: str, task: Task) -> int:
    """Return the index of the choice that one of its letters names, but for a small letter that is the text of a choice.

    Where choices are letters (`A. b`, `B. a`), `a` is the text of B, and `A`, `(a)` and `a)` are letters, as are asked for.
    """
    letter, texts = written.strip("()[]"), [choice.strip() for choice in task.choices]
    if letter == written and letter.islower() and texts.count(letter) == 1:
        return texts.index(letter)
    return task.letters.index(letter.upper())


def index(mark: str) -> int:
    """Return the index of the choice that a mark stands for."""
    return (ord(mark) - LETTERS) % MOST


def _key(quote: str) -> str:
    return quote.casefold() if len(quote) > 1 else quote


def _shape(quote: str) -> str:
    """Return an expression for the text as whole words and numbers: `4` is not in `14` or `4.5`, `red` not in `hundred`."""
    first = rf"(?<![{_EDGE}])(?<!\d[.,])(?<!-)" if re.match(rf"[{_EDGE}]", quote) else ""
    last = rf"(?![{_EDGE}])(?![.,/]\d)" if re.search(rf"[{_EDGE}]$", quote) else ""
    plural = r"(?:e?s)?" if len(quote) > 2 and quote[-1].isalpha() else ""
    return first + r"\s+".join(map(re.escape, quote.split(" "))) + plural + last
