"""Words and signs beside a number that change its value, so that `5 million`, `minus 5` and `√5` are not read as 5.

Looks at what stands next to a number, not at the sense of the text around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from firsthand.patterns.parts.taken_back import asserts, supposes, taken_back
from firsthand.patterns.parts.value_expressions import HARMLESS_COMMANDS, part_of_expression


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DOTLESS = str.maketrans({"ı": "i", "İ": "i"})
"""Letters of Turkish that an expression without regard to case takes for an `i`, and that stay when case is folded."""
MULTIPLES = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
"""Words after a number that multiply it."""
NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
SMALL_NUMBERS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight",
    "9": "nine", "10": "ten", "11": "eleven", "12": "twelve", "13": "thirteen", "14": "fourteen", "15": "fifteen",
    "16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty",
}  # fmt: skip
"""Numbers by their digits, as words."""
PARTS = _words(
    "half halves third thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth "
    "tenths hundredth hundredths thousandth thousandths millionth millionths permille"
)
SIZES = _words(
    "tens dozens hundreds thousands millions billions trillions quadrillion quintillion gross lakh lakhs crore crores k bn "
    "mn tn mln mio mrd tsd thou grand doz score myriad kilo mega giga tera peta hex"
)
_SIZE = re.compile(
    r"(?:m|b|tr|quadr|quint|sext)ill?(?:i?on(?:en|es|s|ths?)?|iard\w*)?", re.IGNORECASE
)  # mill, Billionen
_FUNCTIONS = _words("root sqrt log ln sin cos tan mod modulo base")
_OPERATIONS = _words("plus minus multiplied divided over factorial pi π tau doubled tripled halved infinity inverse")
_BEFORE = (
    NUMBER_WORDS
    | _FUNCTIONS
    | MULTIPLES.keys()
    | _words("half twice thrice double triple quadruple neg")
    | _words("minus negative menos moins минус plus times not no non never neither nor without except")
    | _words("than least most under over below above up between")
)
_AFTER = NUMBER_WORDS | PARTS | SIZES | _FUNCTIONS | _OPERATIONS | {"squared", "cubed", "e", "or"}
WORDS_OF_VALUE = (_BEFORE | _AFTER | _words("maybe perhaps possibly wrong incorrect false untrue to")) - {
    "squared", "cubed", "e", "k", "times",
}  # fmt: skip
"""Words of which none is a unit: with one of them an expression has another value, or none."""
_RELATIONS = _words(
    "quarter quarters percent double twice triple opposite negative reciprocal inverse square cube root logarithm negation"
)
_SHARES = "|".join(sorted(PARTS | _RELATIONS))
_SHARE_OF = re.compile(rf"(?:\b(?:{_SHARES})|%)[ \t]+of[ \t]*$", re.IGNORECASE)
_SUMMED = re.compile(rf"\b(?:{'|'.join(MULTIPLES)})[ \t]+and[ \t]*$", re.IGNORECASE)
_UNIT_LETTERS = frozenset("mglshdcpLCFVWAJN")
_SIGNS = frozenset("=≈~+→⇒⟹")
_MORE_SIGNS = frozenset("^·‰‱负負減减❌✗✘❎🚫")
_KINDS = _words("Lu Ll Lt Lm Lo Nd Zs Cc Po Ps Pe Pi Pf Pd Pc Sc So")
_HAN_SIZES = frozenset("十百千万萬億亿兆半")
_MULTIPLE = re.compile(rf"[ \t*_)\]}}$\"'”’]*-?[ \t]*({'|'.join(MULTIPLES)})\b", re.IGNORECASE)
_NEXT_WORD = re.compile(r"[ \t)\]}*%_\"'”’-]*+([^\W\d_]++)(-?)(?:[ \t]+([^\W\d_]+))?")
_CIRCLE = re.compile(r"\^\s*(?:\{\s*(?:\\circ|°)\s*\}|\\circ|°)")


_NUMBER_WORD = rf"(?:{'|'.join(sorted(NUMBER_WORDS - {'one'}))})"
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])[ \t]*(?:\^[ \t]*\{?[ \t]*-?\d\}?|\*\*-?\d)")
_ANY_NUMBER = rf"(?:[-+$]{{0,2}}\.?\d|(?:one|{_NUMBER_WORD[3:]}\b)"
# `5!`, `5:30`, `5,6`, `5, 6`, `5(3)`, `5; 6`, `5 more than 10`
_AT_ONCE = re.compile(
    r"[{]|!(?!=)|\.(?:\\|\(|\d)|['’]s[ \t]|(?!(?:[mc]?m|ft|in)[23]\b)[^\W\d_]{1,2}\d|[ \t]+[rRxX][ \t]?\d"
    rf"|[ \t]*\([ \t]*(?:in[ \t]+)?(?:{'|'.join(sorted(SIZES | MULTIPLES.keys()))})\b"
    rf"|[ \t]+times[ \t]+(?:an?[ \t]+)?(?:{'|'.join(MULTIPLES)})\b|[ \t]+to[ \t]+the[ \t]+(?:power|second|third|[a-z]+th)\b"
    r"|[ \t]*\(?(?:in[ \t]+)?(?:base[ \t-]+(?!10\b|ten\b)\w|binary\b|octal\b|hexadecimal\b)|[ \t]+followed[ \t]+by\b"
    r"|[ \t]+with[ \t]+(?:a[ \t]+remainder|[^\W_]+[ \t]+(?:zeroe?s|left[ \t]+over|remaining))\b|[ \t]+and[ \t]+itself\b"
    r"|[ \t,(]*(?:remainder\b|rem\b|mod(?:ulo)?\b|hex\b"
    r"|(?:that[ \t]+is|which[ \t]+is)?[ \t]*(?:wrong|incorrect|false|untrue)\b)"
    rf"|[^\n.]{{0,40}}\brounded[ \t]+(?:(?:up|down|off)[ \t]+)?to[ \t]+{_ANY_NUMBER}"
    rf"(?![ \t]+(?:decimal|place|significant|d\.?p))"
    rf"|[^\n.,;(]{{0,40}}\b(?:plus|minus|less)[ \t]+{_ANY_NUMBER}"
    r"|[^\n.]{0,40},[ \t]*(?:and[ \t]+)?(?:a[ \t]+)?half\b(?![ \t]+of\b)"
    r"|[*_`]{0,3}(?:(?:[ \t]*[;,][ \t]*|:|[ \t]+:[ \t]*)(?:(?:and|or|then)[ \t]+)?[-+$]?\.?\d|\)?\([-+$]?\.?\d)"
    rf"|[*_`]{{0,3}}[ \t]*,[ \t]*(?:(?:and|or)[ \t]+)?{_NUMBER_WORD}\b"
    r"|[ \t]+(?:[^\W\d_]+[ \t]+)?(?:less|more|fewer|greater|higher|lower)[ \t]+than[ \t]+[-+$]?\.?\d",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"[^\w.?!,;(]*(?:[^\W\d_]+[ \t]+)?(?:is|are|was)(?:n['’]t\b|[ \t]+(?:not|wrong|incorrect|false|untrue)\b)",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"(?:[.?!,;-][ \t]*actually|[\W_](?:no[,.:;!?-]|no[ \t]+wait\b|wait\b|sorry\b|scratch[ \t]+that\b|correction\b"
    r"|I[ \t]+mean\b|I[ \t]+meant\b"
    rf"|make[ \t]+that\b|oops\b|or[ \t]+rather\b))[^\n]{{0,80}}?(?:\d|\b{_NUMBER_WORD}\b)",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|nowhere|neither|nor|cannot|except|than|twice|thrice)|n['’]t|\b(?:any|every)thing[ \t]+but"
    r"|\ball[ \t]+but|\bfar[ \t]+from)(?:[ \t]+(?:exactly|precisely|really|quite|simply|just|even"
    r"|equal|to|the|an?|number|value|be|near|close|at|all|any|as|much|many|large|big|high|old|long|of)){0,5}[ \t]*$",
    re.IGNORECASE,
)
_OPERAND = re.compile(
    rf"(?:\d|\b(?:one|{_NUMBER_WORD[3:]})[ \t]+(?:less|divided[ \t]+by|choose|remainder|rem|R|to[ \t]+the(?:[ \t]+power)?)"
    r"(?:[ \t]+of)?[ \t]*$",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"(?:\d[,:'’]|(?<!\d)\d{1,3} (?=$)|(?:(?<![^\W\d_])[^\W\d_]|[^\W\d_])\("
    r"|[(\[{][ \t]*(?:[-+$]{0,2}[\d.]{1,20}[ \t]*,[ \t]*){1,8})$"
)
_SAYING = re.compile(r"\banswer\b[\"'*]*(?:[ \t]+(?:is|was)\b|[ \t]*[:=]|(?=[ \t]))[^.!?\n]{0,30}$", re.IGNORECASE)
_CLAUSE_END = re.compile(
    rf"[.?!](?=[\s*_\"'”)$}}]|$)|,(?![ \t]*(?:and[ \t]+)?[-+$]?\.?\d)|[(\[;:=≈]"
    rf"|[ \t]-+[ \t]+(?!{_NUMBER_WORD}\b)(?=[^\W\d_]{{2}})"
    r"|\b(?:because|since|as|so|which|where|when|if|given|that|is|are|was|were|has|have|had|after|before|rather|not|but|than)\b",
    re.IGNORECASE,
)
_FURTHER = re.compile(rf"(?<![\w^_{{])\$?\.?\d|\b{_NUMBER_WORD}\b(?!-)", re.IGNORECASE)
# `5 in 2020`, `$5 for 3`, `5 boxes of 12`, but not `5 of 6`, `5 out of 6`, `5 percent of 10`
_PLACED = re.compile(
    r"\b(?:in|on|at|during|within|with|for|until|from)[ \t]|^[^\w%]*(?!out\b|percent\b|times\b)[^\W\d_]{2,}+[^%\d]*\bof[ \t]"
    r"|\bof[ \t]+(?:the|these|those|his|her|their|our|its|my|all)\b",
    re.IGNORECASE,
)


def folded(text: str) -> str:
    """Return the text with `-` for every minus sign, `$` for every currency, and no characters that are not seen.

    A dash other than `-` that follows a letter or a digit joins two things, and is no sign of a number.
    """
    if text.isascii():
        return text
    made: list[str] = []
    for each in text:
        kind = unicodedata.category(each)
        if each != "-" and (kind == "Pd" or each in "−➖"):
            made.append(" - " if kind == "Pd" and made and made[-1][-1:].isalnum() else "-")
        elif kind != "Cf":
            made.append("$" if kind == "Sc" else " " if kind == "Zs" else each)
    return "".join(made)


def multiple(after: str) -> tuple[int, str]:
    """Return the factor that `million` and the like begin the text after a number with, and the rest of the text."""
    factor = 1
    while len(str(factor)) < 40 and (found := _MULTIPLE.match(after)):
        factor, after = factor * MULTIPLES[found[1].translate(DOTLESS).casefold()], after[found.end() :]
    return factor, after


def changes_value(before: str, number: str, after: str) -> bool:
    """Return whether the text beside a number makes another value of it; `after` is behind any `million`."""
    return (
        _changed_before(before[-100:], number)
        or _changed_after(_CIRCLE.sub("°", after[:100]))
        or goes_on(after)
        or part_of_expression(before, _UNIT_POWER.sub("", _CIRCLE.sub("°", after[:100])))
        or _joined(before[-100:])
        or taken_back(after) is not None
        or _denied(before)
    )


def goes_on(after: str) -> bool:
    """Return whether a stated answer goes on behind its number: `5:30`, `5 - 2`, `5 feet 6 inches`, `5, no wait, 6`.

    A reason, a remark or a place behind the number is none of it: `5, as 3 + 2 = 5`, `5 (five)`, `5 apples in 3 boxes`.
    """
    line = _UNIT_POWER.sub("", after[:300].partition("\n")[0])
    if _AT_ONCE.match(line) or _CORRECTED.search(line):
        return True
    clause = line[: end.start()] if (end := _CLAUSE_END.search(line)) else line
    further = _FURTHER.search(clause)
    return further is not None and not _PLACED.search(clause[: further.start()])


def has_words_of_value(words: Iterable[str]) -> bool:
    """Return whether one of the words changes a value and is not read."""
    return any(each.casefold() in WORDS_OF_VALUE for each in words)


def _joined(before: str) -> bool:
    """True for what stands last in `0,5`, `5:30`, `(8, 3)`, `f(8)`, `8 choose 3` and `ten less 3`."""
    return _JOINED.search(before) is not None or _OPERAND.search(before) is not None


def _denied(before: str) -> bool:
    """True behind `The wrong answer is` and `I doubt the answer is`."""
    said = _SAYING.search(before[-100:])
    return (
        said is not None and not asserts(before[-100:][: said.start()]) and not supposes(before[-100:][: said.start()])
    )


def _changed_before(before: str, number: str) -> bool:
    opened = before.rstrip(" \t\n([{*$\"'“‘«_")
    last, earlier = opened[-1:], opened[:-1].rstrip(" \t)]}")
    if (
        (last == "+" and earlier[-1:] in ("+", "-"))
        or re.search(r"(?<![\d)])!=$", opened)
        or _SHARE_OF.search(opened)
        or _DENIED_BEFORE.search(opened)
        or _SUMMED.search(opened)
    ):
        return True
    if (
        not _harmless(last)
        or (last == "!" and before[-1:] == "!")
        or (last and last in "-/%@\\")
        or (last and last in "+_" and earlier[-1:].isalnum())
    ):
        return True
    if number[0] == "-" and before[-1:].isalnum():
        return True
    if re.search(r"(?<![^\W_])[^\W\d_]$", before) and before[-1] < "\u0530" and "$" not in number:  # x5, but R$5
        return True
    if re.search(r"[^\W\d_][ \t]*\*[ \t]*$", before) and not before.rstrip().endswith("**"):
        return True
    command = re.search(r"\\([A-Za-z]+)$", opened)
    if command is not None:
        return command[1] not in HARMLESS_COMMANDS
    word = re.search(r"(?<![^\W\d_])([^\W\d_]++)[ \t)\]}*_\"'”’]*$", opened)
    if word is not None and before[-1:] == "(" and word[1].casefold() == SMALL_NUMBERS.get(number):
        return False  # five (5)
    return word is not None and word[1].casefold() in _BEFORE


def _changed_after(after: str) -> bool:
    run = re.match(r"[^\w(=,;:\n]*", after)[0]  # type: ignore[index]  # it matches nothing at least
    if not _harmless(after[: len(run) + 1]) or after[:1] in _HAN_SIZES:
        return True
    command = re.match(r"[\s)\]}$]*\\([A-Za-z]+)", after)
    if command is not None and command[1] not in HARMLESS_COMMANDS:
        return True
    if re.match(r"\s*\+|\*\w|[ \t]+\*[ \t]+\w|_\w", after):
        return True
    letter = re.match(r"()([^\W\d_])(?![^\W_])|[ \t]+()([^\W\d_])[\W_]*$|[ \t]*([/-])[ \t]*([^\W\d_])(?![^\W_])", after)
    if letter is not None:
        found = letter[2] or letter[4] or letter[6]
        if found < "\u0530" and (found not in _UNIT_LETTERS or letter[5] == "-"):
            return True
    if re.match(r"[\s,(]*or\b|\s*and\s+(?:an?\b|" + "|".join(NUMBER_WORDS | PARTS) + r")\b", after, re.IGNORECASE):
        return True
    if re.match(r"[ \t]*below[ \t]+(?:zero|0)\b", after, re.IGNORECASE) or _DENIED.match(after):
        return True
    word = _NEXT_WORD.match(after)
    if word is None or (word[2] and word[1].casefold() in NUMBER_WORDS):  # 5 ten-cent stamps
        return False
    if unicodedata.category(after[:1] or " ") == "Lm" or _SIZE.fullmatch(word[1]):
        return True
    return word[1].casefold() in _AFTER or word[1] in ("M", "B", "T")


def _harmless(text: str) -> bool:
    """True if all are letters, digits, spaces, punctuation, currencies, pictures, or signs that change nothing."""
    return all(
        each in _SIGNS or (each not in _MORE_SIGNS and unicodedata.category(each) in _KINDS) or each in "\ufe0f\u20e3"
        for each in text
    )
