"""Verifies the 25 instructions of IFEval (Zhou et al., 2023).

Each verifier takes the text and the instruction's arguments under the dataset's names. A text's language is detected by
langdetect, as in the paper's own code, with a fixed seed (extra `text`). Sentences are counted by our own rule where the
paper's code uses NLTK's trained one: an end mark, closing quotes, then space before anything but a small letter, except
after common abbreviations.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from firsthand.benchmark import needing
from firsthand.errors import DataError, MissingExtra
from firsthand.message import Json
from firsthand.scorers.bounded_search import search
from firsthand.scorers.whole_answer import whole_answer
from firsthand.stats.figures import figure_detail
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_CHARS = 100_000
"""An answer with more characters follows no instruction."""
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|Inc|Ltd|Co|Corp|Ph\.D|U\.S|a\.m|p\.m|No)|\b[A-Z])\.$"
)
_END = re.compile(r"(?<![.?!])[.?!]++[\"'”’)\]*]*+(?=\s++[^\sa-z])")


def _langdetect() -> Any:
    try:
        import langdetect
    except ImportError:
        raise MissingExtra("langdetect", "text", "detecting the language of an answer") from None
    return langdetect


@needing(_langdetect)
def prompt_strict(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer follows all its instructions."""
    return _score("prompt_strict", task, trace, loose=False, share=False)


@needing(_langdetect)
def prompt_loose(task: Task, trace: Trace) -> Score:
    """Score 1 if each instruction is followed by some version of the answer; see `versions`."""
    return _score("prompt_loose", task, trace, loose=True, share=False)


@needing(_langdetect)
def instruction_strict(task: Task, trace: Trace) -> Score:
    """Score the share of instructions that the answer follows. The published figure weights instructions, not prompts."""
    return _score("instruction_strict", task, trace, loose=False, share=True)


@needing(_langdetect)
def instruction_loose(task: Task, trace: Trace) -> Score:
    """Score the share of instructions that some version of the answer follows; see `versions`."""
    return _score("instruction_loose", task, trace, loose=True, share=True)


def follows(text: str, instruction: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether the text follows the instruction with that id. An empty text follows none."""
    given = {name: value for name, value in arguments.items() if value is not None}
    return bool(text.strip()) and VERIFIERS[instruction](text, **given)


def versions(text: str) -> list[str]:
    """Return the eight versions that the loose scores try: first or last line removed, asterisks removed."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(each.replace("*", "") for each in cut)]


def check(instruction: str, arguments: Mapping[str, Any], where: str) -> None:
    """Raise DataError if there is no such instruction or it does not take these arguments."""
    if instruction not in VERIFIERS:
        raise DataError(f"{where}: {instruction!r} is not one of IFEval's {len(VERIFIERS)} instructions")
    known = list(inspect.signature(VERIFIERS[instruction]).parameters)[1:]  # behind the text
    for name, value in arguments.items():
        if name in known and value is not None and (wanted := _unlike(name, value)):
            raise DataError(f"{where}: {name!r} of {instruction} is {str(value)[:60]!r}, and {wanted} was expected")
    try:
        follows("A text.", instruction, arguments)
    except MissingExtra:
        return
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, re.error) as error:
        raise DataError(f"{where}: {instruction} cannot take {dict(arguments)}: {error}") from None


def check_all(given: object) -> None:
    """Raise ValueError unless this is a list of one or more `[id, {argument: value}]` that can be verified."""
    if not isinstance(given, list) or not given:
        raise ValueError(f"a list of one or more [id, {{argument: value}}] was expected, not {str(given)[:60]}")
    for place, each in enumerate(given, 1):
        match each:
            case [str() as instruction, dict() as arguments]:
                try:
                    check(instruction, arguments, f"instruction {place}")
                except DataError as error:
                    raise ValueError(str(error)) from None
            case _:
                raise ValueError(f"instruction {place} is {str(each)[:60]}, and [id, {{argument: value}}] was expected")


def _unlike(name: str, value: object) -> str:
    """What this argument holds in IFEval, if it is not such a value: all answers would follow a blank text, or none."""
    if name in ("keywords", "forbidden_words"):
        right = (
            isinstance(value, list) and bool(value) and all(isinstance(each, str) and each.strip() for each in value)
        )
        return "" if right else "a list of texts"
    if name.startswith(("num_", "nth_")) or name.endswith("frequency"):
        return "" if type(value) is int else "a whole number"
    return "" if isinstance(value, str) and value.strip() else "a text"


def count_sentences(text: str) -> int:
    """Return the number of sentences, by this module's rule."""
    count = 0
    for paragraph in text.split("\n\n"):
        ends = [
            found
            for found in _END.finditer(paragraph)
            if not _ABBREVIATION.search(paragraph[max(0, found.end() - 12) : found.end()])
        ]
        rest = paragraph[ends[-1].end() if ends else 0 :]
        count += len(ends) + bool(rest.strip())
    return count


def language(text: str) -> str | None:
    """Return the ISO code of the text's language, or None if undetected."""
    detector = _langdetect()
    detector.DetectorFactory.seed = 0
    try:
        return str(detector.detect(text))
    except detector.LangDetectException:
        return None


def _score(name: str, task: Task, trace: Trace, *, loose: bool, share: bool) -> Score:
    text = whole_answer(trace, MAX_CHARS)
    texts = versions(text) if loose else [text]
    held = {
        f"{place} {instruction}": any(follows(each, instruction, arguments) for each in texts)
        for place, (instruction, arguments) in enumerate(task.secret["instructions"])
    }
    value = sum(held.values()) / len(held) if share else float(all(held.values()))
    detail: Json = {"followed": held}
    # the published figure is a mean over instructions, not over prompts: a figure of the sums
    return Score(name, value, figure_detail("share", (sum(held.values()), len(held)), **detail) if share else detail)


def _compares(count: int, relation: str, bound: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"the relation is {relation!r}, and 'less than' or 'at least' was expected")
    return count < bound if relation == "less than" else count >= bound


def _count(word: str, text: str, most: int | None = None) -> int:
    return search(word, text, flags=re.IGNORECASE, most=most).times


def _bullets(text: str, *, num_bullets: int) -> bool:
    # The paper's `^\s*` counts the same: blank lines before a bullet are no part of another match.
    stars = re.findall(r"^[^\S\n]*\*[^*].*$", text, flags=re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-.*$", text, flags=re.MULTILINE)) == num_bullets


def _highlights(text: str, *, num_highlights: int) -> bool:
    single = [each for each in re.findall(r"\*[^\n*]*\*", text) if each.strip("*").strip()]
    double = [each for each in re.findall(r"\*\*[^\n*]*\*\*", text) if each[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


def _sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    pattern = rf"\s?{section_spliter}\s?\d+\s?"
    # The paper's code counts what `re.split` gives, to which each group of the expression adds a part.
    return search(pattern, text).times * (1 + re.compile(pattern).groups) >= num_sections


def _paragraphs(text: str, *, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[1:-1]
    return all(map(str.strip, inner)) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def _first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    if nth_paragraph < 1:
        raise ValueError(f"nth_paragraph is {nth_paragraph}, and paragraphs are counted from 1")
    parts = text.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > count or not (paragraph := parts[nth_paragraph - 1].strip()):
        return False
    word = re.split(r"[.,?!'\"]", paragraph.split()[0].lstrip("'").lstrip('"'))[0].lower()
    return count == num_paragraphs and word == first_word.lower()


def _postscript(text: str, *, postscript_marker: str) -> bool:
    marks = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = marks.get(postscript_marker, postscript_marker.lower())
    return search(pattern, text.lower(), flags=re.MULTILINE, most=1).times > 0


def _json(text: str) -> bool:
    text = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    if not all(map(str.strip, parts[1:-1])):
        return False
    answers = [part.strip() for part in parts if part.strip()]
    return len(answers) == 2 and answers[0] != answers[1]


def _title(text: str) -> bool:
    """True if `<<[^\\n]+>>` finds a title that is not blank; a line has one match at most."""
    for line in text.split("\n"):
        begin, end = line.find("<<"), line.rfind(">>")
        if 0 <= begin < end and line[begin : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def _num_placeholders(text: str) -> int:
    """The number of matches of `\\[.*?\\]`."""
    count = 0
    for line in text.split("\n"):
        begin = line.find("[")
        while begin >= 0 and (end := line.find("]", begin)) >= 0:
            count, begin = count + 1, line.find("[", end)
    return count


def _letters(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compares(text.lower().count(letter.lower()), let_relation, let_frequency)


def _english(text: str, cased: bool) -> bool:
    return cased and language(text) in ("en", None)


def _capital_words(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    words = re.findall(r"\w+(?:[-.]\w+)*|'\w+", text)
    return _compares(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


VERIFIERS: dict[str, Callable[..., bool]] = {
    "keywords:existence": lambda text, *, keywords: all(_count(word, text, 1) for word in keywords),
    "keywords:frequency": lambda text, *, keyword, frequency, relation: _compares(
        _count(keyword, text), relation, frequency
    ),
    "keywords:forbidden_words": lambda text, *, forbidden_words: (
        not any(_count(rf"\b{word}\b", text, 1) for word in forbidden_words)
    ),
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda text, *, language: _language_is(text, language),
    "length_constraints:number_sentences": lambda text, *, num_sentences, relation: _compares(
        count_sentences(text), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, *, num_words, relation: _compares(
        len(re.findall(r"\w+", text)), relation, num_words
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, *, num_placeholders: (
        _num_placeholders(text) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text: any(each in text for each in CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, *, prompt_to_repeat: (
        text.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "startend:end_checker": lambda text, *, end_phrase: (
        text.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text: _english(text, text.isupper()),
    "change_case:english_lowercase": lambda text: _english(text, text.islower()),
    "punctuation:no_comma": lambda text: "," not in text,
}


def _language_is(text: str, wanted: str) -> bool:
    return language(text) in (wanted, None)
