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
_PAIRED = re.compile(
    r"(?<![\w*_'$])(\*{1,3}(?!\*)|_{1,3}(?!_)|['$](?!['$]))(?!\s)([^\n]{1,2000}?)(?<![\s\\])\1(?![*_'$\d])"
)
_WRAPPER = re.compile(r"\\[()\[\]]|\\(?=\$)|[`\"“”]")
_EDGE = r"0-9A-Za-z\u00c0-\u052f"
_JOINED = re.compile(rf"[{_EDGE}*_'$€£¥]")
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


# A letter before the text of a choice: `(A) AaBb`, `A. AaBb`, `A (AaBb`; before a text that is a letter, with a mark alone.
_BESIDE = re.compile(rf"(?<![{_EDGE}])([A-Za-z])(?:[).:\]]{{1,2}} ?|[).:\]]{{0,2}} ?[-,(\[]? ?)\Z")
_LETTER_BESIDE = re.compile(
    rf"(?<![{_EDGE}])(?P<letter>[A-Z])(?P<mark>[).:\]]{{1,2}} ?| ?[(\[])(?P<text>[A-Za-z])(?=[).\]]{{0,3}}(?: ?\n| ?\Z))"
)


def plain(text: str) -> str:
    """Return the text without typography, on whose lines a box of LaTeX is between BOX and END_OF_BOX.

    A field of JSON and a tag are a box on a line of its own.
    """
    return _plain(_PRIVATE.sub("", text))


def _plain(text: str) -> str:
    text = folded(text.translate(_FULL_WIDTH))
    text = _SPECIAL.sub("", text).replace("{,}", ",")
    for _ in range(3):
        text = _WRAPPED.sub(r"\1", text)
    text = _SPACE.sub(" ", text)
    text = _BOXED.sub(rf"{BOX}\1{END_OF_BOX}", text)
    text = _TAGGED.sub(rf"\n\n{BOX}\2{END_OF_BOX}\n\n", text)
    text = _FIELD.sub(rf"\n\n{BOX}\1{END_OF_BOX}\n\n", text)
    return re.sub(r"[^\S\n]+", " ", _TYPOGRAPHY.sub("", text))


def marked(text: str, task: Task) -> str:
    """Return a text as `plain` does, with one character for each choice that it names, the longest that fits.

    A text that is written as one choice alone is that choice. Where it is so only without case or typography, and of several
    choices, it is the one whose letter stands before it.
    """
    quotes = [_quote(plain(choice)) for choice in task.choices[:MOST]]
    text = _plain(_marked_as_written(_PRIVATE.sub("", text), task, quotes))
    exact: dict[str, set[int]] = {}
    caseless: dict[str, set[int]] = {}
    for at, quote in enumerate(quotes):
        if quote and not _is_letter(quote, task):
            exact.setdefault(quote, set()).add(at)
            caseless.setdefault(_key(quote), set()).add(at)
    if exact:
        shapes = "|".join(_shape(quote) for quote in sorted(exact, key=len, reverse=True))
        before = text

        def text_mark(found: re.Match[str]) -> str:
            said = " ".join(found[0].split()).rstrip(".")
            forms = (said, said[:-1], said[:-2])
            same = next((exact[each] for each in forms if each in exact), set())
            same = same or next((caseless[_key(each)] for each in forms if _key(each) in caseless), set())
            if len(same) > 1:
                beside = _BESIDE.search(before[max(0, found.start() - 8) : found.start()])
                same &= (
                    {task.letters.index(beside[1].upper())} if beside and beside[1].upper() in task.letters else set()
                )
            return chr(TEXTS + min(same)) if len(same) == 1 else found[0]

        text = re.sub(shapes, text_mark, text, flags=re.IGNORECASE)

    def own_letter(found: re.Match[str]) -> str:
        at = task.letters.index(found["letter"]) if found["letter"] in task.letters else -1
        own = 0 <= at < len(quotes) and found["text"] == quotes[at]
        return found["letter"] + found["mark"] + (chr(TEXTS + at) if own else found["text"])

    text = _LETTER_BESIDE.sub(own_letter, text)

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


def _marked_as_written(text: str, task: Task, quotes: list[str]) -> str:
    """Return the text with a mark for each choice that typography is a part of, as `A*`, or `__init__` beside `init`."""
    written: dict[str, set[int]] = {}
    for at, (choice, quote) in enumerate(zip(task.choices, quotes, strict=False)):
        raw = _quote(choice)
        lost = raw != quote and (not quote or (_is_letter(quote, task) and not _is_letter(_bare(raw), task)))
        if raw and not _is_letter(_unpaired(raw), task) and (lost or quotes.count(quote) > 1):
            written.setdefault(raw, set()).add(at)
    alone = {raw: min(same) for raw, same in written.items() if len(same) == 1}
    if not alone:
        return text
    every = sorted({raw for choice in task.choices if (raw := _quote(choice))}, key=len, reverse=True)
    shapes = re.compile("|".join(_shape(raw, as_written=True) for raw in every))  # `init` is not in `init()`

    def mark(found: re.Match[str]) -> str:
        said = _quote(found[0])
        at = alone.get(said, alone.get(said.replace("\\", "")))
        beside = found.string[max(0, found.start() - 1) : found.start()] + found.string[found.end() : found.end() + 1]
        return found[0] if at is None or _JOINED.search(beside) else chr(TEXTS + at)

    for _ in range(3):  # `**A***` is a bold A*, and `**A**` a bold A
        text = _unpaired(shapes.sub(mark, text))
    return shapes.sub(mark, text)


def _unpaired(text: str) -> str:
    return _PAIRED.sub(r"\2", text)


def _bare(text: str) -> str:
    """Return a choice's text without what is only put around it: `\\text{B}`, `\\(B\\)` and `"B"` are B, `B*` is not."""
    for _ in range(3):
        text = _unpaired(_WRAPPED.sub(r"\1", _WRAPPER.sub("", text)))
    return text


def _quote(text: str) -> str:
    return " ".join(text.split()).strip(" .")


def _is_letter(quote: str, task: Task) -> bool:
    return len(quote) == 1 and quote.upper() in task.letters


def _key(quote: str) -> str:
    return quote.casefold() if len(quote) > 1 else quote


def _shape(quote: str, *, as_written: bool = False) -> str:
    """Return an expression for the text as whole words and numbers: `4` is not in `14` or `4.5`, `red` not in `hundred`.

    A full stop before a closing bracket belongs to it. As written, signs of typography may be escaped.
    """
    first = rf"(?<![{_EDGE}])(?<!\d[.,])(?<!-)" if re.match(rf"[{_EDGE}]", quote) else ""
    last = rf"(?![{_EDGE}])(?![.,/]\d)" if re.search(rf"[{_EDGE}]$", quote) else ""
    words = [re.escape(each) for each in quote.split(" ")]
    if as_written:
        words = [re.sub(r"\\?([*_$'`])", r"\\\\?\\\1", each) for each in words]
        return first + r"\s+".join(words) + last
    plural = r"(?:e?s)?" if len(quote) > 2 and quote[-1].isalpha() else ""
    return first + r"\s+".join(words) + plural + last + r"(?:\.{1,3}(?=[)\]]))?"
