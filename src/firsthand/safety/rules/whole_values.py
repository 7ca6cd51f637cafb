"""Decides whether a value in a text is a whole word, number, address or path, or a part of a longer one.

A path may hold blanks. It goes on behind one if a later word of the same clause has a separator within it or an extension,
unless a word such as `to` or `and` comes first, or that word begins a path of its own.
"""

from __future__ import annotations

import re
import unicodedata

from firsthand.system.unspaced_scripts import HAN, KANA, SOUTHERN

_JOINERS = "@./+-_:%~\\"
"""Characters that join words to a longer address, path or name."""
_OPENING = "([{*?#&=$^"
"""Characters that join what comes after them to the word before, as in `report(1).txt`, `data*`, `a?b=c`."""
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "„": "“"}
_APOSTROPHES = "'’"
_OF_ADDRESSES = frozenset("!#$&'*=?^`{|}\"")
"""Characters within an address that stand around one as well, as quotes do."""
_FAR = 400
"""Characters of a text that are looked at on each side; a word that is longer is no witness for a part of it."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL_END = re.compile(r"[\s\"<>`“”«»]")
_AFTER_URL = re.compile(r"/?(?:[.,;:!?)\]}'’*]*|['’]s|[,;][A-Za-z][A-Za-z0-9+.-]*://.*)", re.DOTALL)
_SENTENCE = re.compile(r"[A-Z][a-z]+ ")
_GROUPING = ",'’ \u00a0\u2009\u202f"
_NUMBER = re.compile(rf"(?<!\w)\d+(?:[{_GROUPING}]\d+)*+")
_LIST_OF_NUMBERS = re.compile(r"\d+(?:,\d+){2,}+|\d+(?: \d+)++")
_GROUPED = re.compile(rf"\d{{1,3}}(?:[{_GROUPING}]\d{{3}})++(?:,\d+)?")
_EXTENSION = re.compile(r"[^\s/\\]\.[A-Za-z][A-Za-z0-9]{0,4}\Z")
_ROOTED = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]*://")
_CLAUSE_END = re.compile(r"[\r\n\t\"<>`“”«»|()\[\]{}]|[.,;:!?](?=\s|\Z)")
_ADDRESS = re.compile(r"[a-z0-9][a-z0-9._%+-]*@(?:[a-z0-9-]+\.)+[a-z]{2,}", re.IGNORECASE | re.ASCII)
_JOINED = f"{HAN}{KANA}{SOUTHERN}\uac00-\ud7a3"
"""Letters of scripts that put no blank beside a Latin address; Korean puts none behind it."""
_JOINED_BEFORE = re.compile(rf"[{_JOINED}]\Z|(?<![\w@./+-])mailto:\Z", re.IGNORECASE)
_JOINED_AFTER = re.compile(
    rf"[{_JOINED}]++(?![.@_+-]\w)|['’](?:y?[aeıiuü]|n?[ıiuü]n|[dt][ae]n?|y?l[ae])(?![\w@.+-])", re.IGNORECASE
)
"""What may be joined to the end of an address: letters of such a script, or a case of Turkish, as in `bob@home.org'a`."""
_MAY_FORBID = re.compile(
    "[不勿莫禁無无没沒未拒止絶绝]|(?<![特分区级性])[别別]|(?<![删刪])除|以外|之外|避免|以免|免得"
    "|ない|なく|ません|せず|ずに|やめ|マセン|ナイ|[うくすつぬむるぐぶ]な(?![ぁ-ん])"
    r"|지\s?(?:마|말|않|못)|말고|말아|안\s|안\s?[돼됩되]|못|빼고|제외|아니|금지|없이"
    "|อย่า|ไม่|ห้าม|เว้น|งด|ຢ່າ|ບໍ່|ຫ້າມ|မ|កុំ|មិន|ហាម"
    "|(?<![a-z])(?:not?|never|don['’]?t|except|without)(?![a-z])"
    r"|\b(?:asla|sakın|hiçbir|hariç|dışında|değil|yasak)"
    r"|m[ae](?:y[ıi]n(?:[ıi]z)?|s[ıi]n(?:l[ae]r)?)?(?![\w@-]|\.\w)",
    re.IGNORECASE,
)
"""Signs and words with which these languages may forbid; in a sentence with one, what is joined to words is not named."""
_SENTENCE_END = re.compile(r"[。！？!?]|\.(?=\s)")
_CONNECTING = (
    # English
    "a about after again all also an and are as at be because before but by called containing except first for from has "
    "here i if in instead into is it its last like matching named next not now of on only onto or out over per please so "
    "than that the them then there these this those to too under until using via was we when where which while who whose "
    "with within without you against between through versus vs "
    # German, French, Spanish, Italian, Portuguese, Dutch, Swedish
    "als auf aus bei bitte das dem den der die durch ein eine für im ist mit nach oder ohne über um und unter vom von vor "
    "zu zum zur alla avec aux chez com con da dal dans das de del della des di do du e ed el en est et fra het il la las le "
    "les lo los mais met na naar no noch nu o och ou ohne op para pas pero por pour puis sans sin sob som sous su sur till "
    "un una une uno utan van vers voor y"
)
_CONNECTORS = frozenset(_CONNECTING.split())
"""Words that end a path, as nobody begins the second word of a file's name with them without a quote."""


def stands_whole(text: str, start: int, stop: int, *, exact: bool) -> bool:
    """True if text[start:stop] is not a part of a longer word, number, address or path. `exact` says that it is a path."""
    value = text[start:stop]
    begins, ends = _begins(text, start, stop), _ends(text, start, stop, exact)
    if not (begins and ends):
        return not exact and _is_joined(text, start, stop, begins, ends)
    if (value[:1].isdigit() or value[-1:].isdigit()) and _in_number(text, start, stop):
        return False
    is_path = exact or (("/" in value or "\\" in value) and "://" not in value)
    return not (is_path and (_goes_on(text, start, stop) or _began_before(text, start, stop)))


def is_hidden(character: str) -> bool:
    """True if a person does not see the character."""
    return unicodedata.category(character) in ("Cf", "Cc", "Mn", "Me", "Co", "Cn") and character not in "\n\t\r"


def _begins(text: str, start: int, stop: int) -> bool:
    before = text[start - 1 : start]
    if not before:
        return True
    run = _URL_END.split(text[max(0, start - _FAR) : start])[-1]
    if run.endswith("://"):
        return run.count("://") == 1
    if "://" in run:  # within a URL, or the next of a list of URLs
        return before in ",;" and not re.search(r"[?#]", run) and _SCHEME.match(text, start) is not None
    if "@" in text[start:stop] and before in _OF_ADDRESSES and (text[start] == "@" or text[: start - 1][-1:].isalnum()):
        return False  # o'brien@corp.com
    if before == "*":
        return text[stop : stop + 1] == "*"
    return not (before.isalnum() or before in _JOINERS or before in ")]}" or is_hidden(before))


def _ends(text: str, start: int, stop: int, exact: bool) -> bool:
    after, further = text[stop : stop + 1], text[stop + 1 : stop + 2]
    if not after:
        return True
    if after == "." and not exact and _SENTENCE.match(text[stop + 1 : stop + 40]):
        return True  # the next sentence, without a blank between
    if text[:start].endswith("://") or "://" in text[start:stop]:
        rest = _URL_END.split(text[stop : stop + _FAR])[0]
        return _AFTER_URL.fullmatch(rest) is not None
    if after in ".:-/":  # the end of a sentence, or a part of a longer address
        return not (further.isalnum() or further in _JOINERS) if further else after != "/"
    if after == "*" and text[start - 1 : start] == "*":
        return True  # emphasis in Markdown
    if after in _OPENING:
        return after not in "*$" and not further.strip()
    if after in _QUOTES.values() and further == "@":
        return False
    if after in _APOSTROPHES and further.isalnum() and any(each in _JOINERS for each in text[start:stop]):
        is_path = "/" in text[start:stop] or "\\" in text[start:stop]
        return not is_path and re.match(r"s\b", text[stop + 1 : stop + 3]) is not None
    return not (after.isalnum() or after in _JOINERS or is_hidden(after))


def _is_joined(text: str, start: int, stop: int, begins: bool, ends: bool) -> bool:
    """True if it is an address that words of a language are joined to, and their sentence does not seem to forbid it.

    Args:
        begins, ends: Whether nothing is joined to its start, and to its end.
    """
    if _ADDRESS.fullmatch(text, start, stop) is None:
        return False
    before, after = text[max(0, start - _FAR) : start], text[stop : stop + _FAR]
    if not begins and ("://" in _URL_END.split(before)[-1] or _JOINED_BEFORE.search(before[-9:]) is None):
        return False
    if not ends and _JOINED_AFTER.match(after) is None:
        return False
    if ends and before.endswith(":"):
        return True  # `mailto:`
    said, goes_on = _SENTENCE_END.split(before), _SENTENCE_END.split(after)
    if (len(said) == 1 and start > _FAR) or (len(goes_on) == 1 and len(after) == _FAR):
        return False  # a sentence that is not seen whole
    return _MAY_FORBID.search(f"{said[-1]} {goes_on[0]}") is None


def _in_number(text: str, start: int, stop: int) -> bool:
    """True if the value is a part of a longer number, such as 12 of `12,500`; not if the number may be a list."""
    begin = max(0, start - _FAR)
    for found in _NUMBER.finditer(text, begin, stop + _FAR):
        if found.start() >= stop:
            return False
        if found.end() <= start or (found.start() >= start and found.end() <= stop):
            continue
        number = found[0]
        if _GROUPED.fullmatch(number):
            return True
        return _LIST_OF_NUMBERS.fullmatch(number) is None
    return False


def _goes_on(text: str, start: int, stop: int) -> bool:
    """True if a path goes on behind a blank."""
    quote = _QUOTES.get(text[start - 1 : start])
    if quote is not None and quote in text[stop : stop + _FAR].partition("\n")[0] and text[stop : stop + 1] != quote:
        return True
    value = text[start:stop]
    if _EXTENSION.search(value):
        return False
    for word in _CLAUSE_END.split(text[stop : stop + _FAR])[0].split():
        if _ends_a_path(word) or _ROOTED.match(word):
            return False
        if re.search(r"[/\\]", word) or _EXTENSION.search(word):
            return not _same_root(value, word)
    return False


def _began_before(text: str, start: int, stop: int) -> bool:
    """True if a path began before a blank."""
    value = text[start:stop]
    if _ROOTED.match(value):
        return False
    for word in reversed(_CLAUSE_END.split(text[max(0, start - _FAR) : start])[-1].split()):
        if _ends_a_path(word) or _EXTENSION.search(word):
            return False
        if re.search(r"[/\\]", word):
            return not _same_root(word, value)
    return False


def _ends_a_path(word: str) -> bool:
    """True if no path goes over the word: `to`, `and/or`, `-v`, `1/2`."""
    return word[0] == "-" or all(part in _CONNECTORS or part.isdigit() for part in word.split("/"))


def _same_root(first: str, second: str) -> bool:
    """True if two relative paths begin with the same folder, as in a list of them."""
    roots = [re.split(r"[/\\]", each)[0] for each in (first, second)]
    return "" not in roots and roots[0] == roots[1]
