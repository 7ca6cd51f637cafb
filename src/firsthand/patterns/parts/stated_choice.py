"""Reads the choice that an answer states.

The answer's last explicit statement (`Answer: B`, `\\boxed{B}`, `<answer>B</answer>`, a line that is `B`) is read whole: it
counts if it is one choice, by letter or text, and nothing stands beside it but an end, a reason, or what is not the answer.
Anything else there (another choice, a sign, a denial) is no answer, and no older statement is looked at. Without a statement
the prose counts, if it asserts one choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from firsthand.patterns.parts.asserted_choices import asserted, spoken_of
from firsthand.patterns.parts.later_choice import replaced
from firsthand.patterns.parts.named_choices import (
    BOX,
    CHOICE,
    END_OF_BOX,
    LETTER,
    LETTERS,
    TEXT,
    TEXTS,
    index,
    lettered,
    marked,
    plain,
)  # fmt: skip
from firsthand.patterns.parts.taken_back import BEFORE_CHARS, asserts, taken_back
from firsthand.patterns.parts.value_words import changes_value, multiple
from firsthand.task import Task

_FINEST = (
    r"(?:correct|right|best|final|only|most[ \t]+(?:likely|appropriate|accurate|suitable|probable)|closest|appropriate)"
)
_MARKER = re.compile(
    rf"(?<!this )(?<!that )(?<!another )(?:(?<=\s)|^|(?<=[(:>{BOX}-]))(?:####|(?:(?:my|the|our|(?:here(?:'s|[ \t]+is)"
    rf"|so|thus|therefore),?[ \t]+your|so|and"
    rf"|is|final|{_FINEST})[ \t]+){{0,5}}"
    rf"(?:(?:answer|ans|solution)(?:[ \t]+(?:choice|option|letter))?|{_FINEST}[ \t]+(?:choice|option"
    rf"|alternative|letter|one|statement))"
    r"(?:[ \t]+(?:to|for)[ \t]+(?:the|this|your)[ \t]+(?:question|problem))?"
    r"(?:[ \t]*(?:[:=]|->|=>|→|-[ \t])|'s|[ \t]+(?:is|was|(?:should|must|would|will|has[ \t]+to)[ \t]+be)\b)[ \t]*:?"
    r"|(?:réponse|respuesta|risposta|resposta|antwort|ответ)[ \t]*:|(?:答案|答え|정답)[ \t]*(?:是|为|は|은|:)+)[ \t]*",
    re.IGNORECASE,
)
_CONTRASTS = re.compile(r"\b(?:but|while|whereas|yet|however)\b", re.IGNORECASE)
_SEEMS = re.compile(
    r"\b(?:it[ \t]+)?(?:seems|looks|appears)(?:[ \t]+(?:to[ \t]+me|like|that))*(?:[ \t]+the)?[ \t]*$", re.IGNORECASE
)
_LEAD = re.compile(
    r"[\s:=]*(?:(?:that|it[ \t]+is|it's|therefore|thus|indeed|clearly|definitely|certainly|probably"
    r"|most[ \t]+likely|likely|simply"
    r"|just|still|obviously|(?:I[ \t]+(?:think|believe)(?:[ \t]+that)?)|the|an?|only|correct|right|best|final"
    r"|(?:option|choice|letter|answer|alternative)(?:[ \t]+is\b)?[ \t]*:?)(?:[ \t]+|(?=[\uf000\ue000-\uefff]))){0,8}",
    re.IGNORECASE,
)
_SMALL = re.compile(r"[(\[]{0,2}([a-z])[)\]]{0,2}(?=\s*$|[.:,)](?:\s|$)|\s+-+\s|\s+(?:because|since)\b)")
_SEPARATED = re.compile(r"[ \t]*[):.]{1,2}[ \t]*|[ \t]+-+[ \t]+|[ \t]*,[ \t]*|[ \t]*[(\[]|[ \t]+")
_RIGHTLY = re.compile(
    r"(?<![ \t])[ \t]++(?:is|was|must[ \t]+be|seems|would[ \t]+be)(?:[ \t]+(?:clearly|definitely|indeed|certainly"
    r"|therefore|thus)){0,3}"
    r"(?:[ \t]+(?:the|my))?(?:[ \t]+(?:only|most))?[ \t]+(?:correct|right|best|true|accurate|appropriate"
    r"|answer|likely)\b"
    r"(?:[ \t]+(?:answer|option|choice|one))?(?![ \t]+(?:than|if|only|or|to|about|in)\b)"
)
_REASON = re.compile(
    r"(?<![ \t,;(:-])[ \t]*+[,;(:-]*+[ \t]*+(?:because|since|as(?![ \t]+(?:well|is|are|does|do|much|(?:an?|my"
    r"|the)[ \t]+(?:\w+[ \t]+)?(?:guess|draft|start"
    r"|placeholder|backup|fallback|first|second|last|final|choice|answer|option))\b)|due[ \t]+to|given"
    r"|so[ \t]+that|meaning|(?:and[ \t]+)?here(?:'s|[ \t]+is)[ \t]+why"
    r"|which[ \t]+(?:is|was|means|has|gives?|shows?|describes?|matches|fits|represents?|states?|equals"
    r"|makes|corresponds)\b"
    r"(?![ \t]+(?:not|wrong|incorrect|false|no|never|untrue|clearly|also|impossible)\b))\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"(?<![ \t,;(-])[ \t]*+[,;(-]*+[ \t]*+(?:(?:and|but)[ \t]+)?(?:not|rather[ \t]+than|instead[ \t]+of|over"
    r"|unlike)[ \t]+(?:the[ \t]+)?[\ue000-\uefff]"
    r"(?:[ \t]*(?:,|or\b|and\b|nor\b){1,2}[ \t]*[\ue000-\uefff]){0,12}",
    re.IGNORECASE,
)
_PLACE = re.compile(
    rf"(?<![ \t])[ \t]*+(?:,[ \t]*+(?:the|an?)|,?[ \t]*+(?:in|for|from|by|with|on|based|according|under|at|here"
    rf"|I'm|I[ \t]+am))\b"
    rf"(?![^.\n]*(?:{CHOICE}|n't\b|\b(?:not|no|unsure|doubt\w*|wrong|incorrect|false|trap|distractor|opposite|worst"
    rf"|half)\b))",
    re.IGNORECASE,
)
_ENDED = re.compile(rf"[ \t)\]}}\"{END_OF_BOX}]*(?:[.!;]+(?=\s|$|{END_OF_BOX})|\n|$)[\"{END_OF_BOX})]*")
_JOINED = re.compile(
    rf"[\s,;(-]*(?:(?:or|but|also|then|plus|maybe|perhaps|possibly|and)\b(?![^.!?\n]*\b(?:wrong|incorrect"
    rf"|not|false)\b)[^.!?\n]*{CHOICE}"
    r"|and/or|or\b|no[ \t]*[,.:;!-]|(?:maybe|perhaps|possibly|probably)[ \t]+not\b"
    r"|not\b(?![ \t]+(?:the[ \t]+)?[\ue000-\uefff])"
    r"|(?:(?:that|this|it|which|but[ \t]+(?:that|this|it))[ \t]+)?(?:(?:is|was|would[ \t]+be"
    r"|cannot[ \t]+be|can't[ \t]+be)[ \t]+)?"
    r"(?:clearly[ \t]+|also[ \t]+)?(?:wrong|incorrect|false|untrue|ruled[ \t]+out|eliminated|excluded"
    r"|impossible|unlikely"
    r"|not[ \t]+(?:it|right|correct|true))\b|(?:that|this|it)[ \t]+(?:isn't|wasn't)\b)",
    re.IGNORECASE,
)
_ALSO = re.compile(
    rf"(?:[,(-][ \t]*|^[ \t]*)(?:or|and[ \t]+also|but[ \t]+also)\b[^.!?\n]{{0,40}}{CHOICE}"
    rf"|\b(?:otherwise|else|if[ \t]+not|failing[ \t]+that)\b[^.!?\n]{{0,40}}{CHOICE}"
    rf"|[;,][ \t]*{CHOICE}[ \t]+(?:as(?![ \t]+well)|if|when|otherwise)\b"
    rf"|\b(?:as|so|like)[ \t]+(?:is|are|does|do|would|well[ \t]+as)[ \t]+{CHOICE}",
    re.IGNORECASE,
)
_ITEM = re.compile(rf"[ \t]*[(\[]?({LETTER})[ \t]*[).:\]-]?(?=\s|$|{TEXT})")
_ALONE = re.compile(
    rf"[ \t]*(?:(?:the|an?|it|they)[ \t]+(?={TEXT}))?[(\[]?{CHOICE}[)\]]?"
    rf"(?:[ \t]*[).:,-]?[ \t]*\(?{TEXT}\)?)?[ \t]*[.!]?[ \t]*",
    re.IGNORECASE,
)
_NEGATED = re.compile(rf"(?<!\w)[!¬](?=[(\[]?{CHOICE})")
_HEAD = re.compile(rf"\s*[(\[]?{LETTER}[ \t]*(?:[).:\]]|-[ \t]|,?[ \t]*(?:because|since)\b)")
_OPTION = re.compile(rf"(?m:^[ \t]*[(\[]?({LETTER})[ \t]*[).:\]-]?[ \t]*{TEXT}[ \t]*[.]?[ \t]*$)")
_OFFERED = re.compile(
    rf"\s*(?!(?:not|unlike|while|whereas|although|though|neither|nor|no|see|and|or|option"
    rf"|options)\b)(?:\w+\s+){{0,2}}({CHOICE})[\s!?]*"
    rf"(?:(?:\w+\s+){{0,2}}(?:too|also|equally|well|instead))?\s*",
    re.IGNORECASE,
)

_CHEER = re.compile("[✅✔☑👉👍🎯🎉🎊😊🙂😀😃😄🥳💡🚀⭐🌟🏆✨]\ufe0f?")
Value = Callable[[str], Fraction | None]


def stated_choice(text: str, task: Task, value: Value) -> str | None:
    """Return the letter of the choice that a text gives as its answer, or None.

    `value` reads a number, so that a choice which is one is found in another form of it (`1,000`, `1/2`).
    """
    said = _NEGATED.sub("not ", marked(_without_cheer(text, task), task))
    starts = sorted(_statements(said))
    if not starts:
        prose = _without_options(said)
        return _letter(
            asserted(prose)
            or {at for at in spoken_of(prose, task.prompt) if re.search(r"[^\W\d_]{3}", task.choices[at])},
            task,
        )
    begin, end = starts[-1]
    denied = not _asserted(said[: begin[0]])
    content = said[begin[1] : end]
    if not denied and (found := _read(content, said[: begin[1]], task, value)) is not None:
        return _letter({found, *_stated_above(starts, said, task, value)}, task)
    lead = _LEAD.match(content)
    if denied or (lead is not None and re.match(r"[\W_]*" + CHOICE, content[lead.end() :])):
        return None
    return _letter(asserted(content), task)


def _asserted(before: str) -> bool:
    """Return whether the words before a statement assert it: those of its own clause, without `it seems that`."""
    return asserts(_SEEMS.sub("", _CONTRASTS.split(before[-BEFORE_CHARS:])[-1]))


def _stated_above(starts: list[tuple[tuple[int, int], int]], said: str, task: Task, value: Value) -> set[int]:
    """Return the choice of the statement above a line that is only a choice: such a line takes nothing back."""
    (begin, end), _ = starts[-1]
    if begin < end or len(starts) < 2:
        return set()
    (above, content), _ = starts[-2]
    found = _read(said[content:begin], said[:content], task, value) if _asserted(said[:above]) else None
    return set() if found is None else {found}


def _letter(found: set[int], task: Task) -> str | None:
    at = found.pop() if len(found) == 1 else -1
    return task.letters[at] if at >= 0 else None


def _statements(said: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield for each explicit statement where its marker begins and ends, and the end of the text that it may reach to."""
    for found in _MARKER.finditer(said):
        yield (found.start(), found.end()), len(said)
    at = -1
    while (at := said.find(BOX, at + 1)) >= 0:
        yield (at, at + 1), len(said)
    lines = [each for each in re.finditer(r"[^\n]+", said) if each[0].strip()]
    for at, found in enumerate(lines):
        near = {each[1] for line in lines[max(0, at - 1) : at + 2] if (each := _ITEM.match(line[0])) is not None}
        alone = _ALONE.fullmatch(found[0]) is not None and len(near) < 2
        first = at == 0 and _HEAD.match(found[0]) is not None and len(near) < 2
        small = len(lines) == 1 and len(found[0]) < 8 and _SMALL.match(found[0].strip()) is not None
        if alone or first or small:
            yield (found.start(), found.start()), len(said)


def _without_options(said: str) -> str:
    """The text without the lines that repeat the question's options."""
    repeated = {each[1] for each in _OPTION.finditer(said)}
    return _OPTION.sub("", said) if len(repeated) > 1 else said


def _read(content: str, before: str, task: Task, value: Value) -> int | None:
    """Return the index of the one choice that a statement is, read to its end."""
    if before.endswith(BOX):
        inner, _, after = content.partition(END_OF_BOX)
        last = before[:-1].rpartition("\n")[2]
        if re.search(
            r"(?:[-+~!/^*=<>]|\b(?:or|and|not|no|minus|twice|half|of|times|than|except))[ \t]*$", last
        ) and not last.rstrip().endswith("="):
            return None
        boxes = {each.strip() for each in re.findall(rf"{BOX}([^{END_OF_BOX}]*)", last)}
        if boxes - {inner.strip()}:
            return None
        content = inner + after if inner.strip() else content
    content = content.lstrip()
    lead = _LEAD.match(content)
    start = lead.end() if lead is not None else 0
    whole = content
    content = content[start:].lstrip("([" + BOX)
    if (small := _SMALL.match(content)) and not re.search(r"\ban?[ \t]+$", whole[:start], re.IGNORECASE):
        known = small[1].upper() in task.letters
        content = (chr(LETTERS + lettered(small[0].strip(), task)) if known else small[1]) + content[small.end() :]
    mark = content[:1]
    if not re.match(CHOICE, mark):
        return _same_value(content, task, value)
    mine, after = index(mark), content[1:]
    if re.match(TEXT, mark):
        if named := re.match(rf"[ \t,]*\(?{chr(LETTERS + mine)}\)?", after):
            after = after[named.end() :]
        if _closes(after, mine, task) and not _revalued(after, task.choices[mine]):
            return mine
        return _same_value(content, task, value)
    own = _SEPARATED.match(after)
    if own is not None and after[own.end() :].startswith(chr(TEXTS + mine)):
        after = after[own.end() + 1 :]
        return (
            mine
            if _closes(after, mine, task) or (re.match(r"[ \t)]*[\w(,]", after) and not _contradicts(after, mine))
            else None
        )
    if _closes(after, mine, task):
        return mine
    free = re.match(r"[)\]]?[ \t]*[:.)][ \t]+|[)\]][ \t]*(?=\w)|[ \t]+-+[ \t]+|[ \t]*\((?=[^)])", after)
    if free is None or _contradicts(after[free.end() :], mine):
        return None
    if not _is_of(after[free.end() :], task.choices[mine], free[0]):
        return None
    said, meant = value(re.split(r"\n|[.](?=\s|$)", after[free.end() :])[0]), value(task.choices[mine])
    return None if said is not None and meant is not None and said != meant else mine


def _closes(after: str, mine: int, task: Task) -> bool:
    """True if the choice ends there, or a reason, a place or what is not the answer follows, and no other answer."""
    if (ended := _ENDED.match(after)) is not None:
        rest = after[ended.end() :]
        if ended[0].rstrip(END_OF_BOX + '") ]').endswith("\n") or "\n" in ended[0]:
            return not replaced(rest, mine)
        line, _, further = rest.partition("\n")
        return not _contradicts(line, mine) and not replaced(further, mine)
    for allowed in (_RIGHTLY, _REASON, _CONTRAST, _PLACE):
        if (found := allowed.match(after)) is not None:
            rest = after[found.end() :]
            weighed = allowed in (_RIGHTLY, _CONTRAST)
            if allowed is _CONTRAST and mine in map(index, re.findall(CHOICE, found[0])):
                return False
            return not (
                _contradicts(rest, mine)
                if weighed
                else asserted(rest) - {mine} or _ALSO.search(rest.partition("\n")[0])
            )
    bracket = re.match(r"[ \t]*\((?=[^)])", after)
    return (
        bracket is not None
        and _is_of(after[bracket.end() :], task.choices[mine], bracket[0])
        and not _contradicts(after[bracket.end() :], mine)
        and not re.match(r"[^)]*\d", after)
    )


def _contradicts(rest: str, mine: int) -> bool:
    """True if the rest of a statement gives another answer, joins one to it, or denies it."""
    line, _, further = rest.partition("\n")
    return bool(
        _JOINED.match(line)
        or _ALSO.search(line)
        or any(_offers(clause, mine) for clause in re.split(r"[.,:;()]", line))
        or taken_back(line) is not None
        or asserted(line) - {mine}
        or replaced(further, mine)
    )


def _offers(clause: str, mine: int) -> bool:
    """True if a clause says little else than another choice: `alternatively A`, `A too`."""
    found = _OFFERED.fullmatch(clause)
    return found is not None and index(found[1]) != mine


def _revalued(after: str, choice: str) -> bool:
    """True if a choice that ends in a digit has another value by what stands behind it."""
    if not re.search(r"\d[ \t]*$", plain(choice)):
        return False
    factor, further = multiple(after[:300])
    return factor != 1 or changes_value("", "5", re.sub(CHOICE, "", further))


def _is_of(said: str, choice: str, separator: str) -> bool:
    """True if what stands behind a letter and its mark is no remark of a word or two, but for words of the choice."""
    words = re.findall(r"\w+", re.split(r"[.)\n]", said)[0].casefold())
    if re.search(CHOICE, said.partition("\n")[0]) or len(words) > (2 if "(" not in separator else 3):
        return True
    own = {each[:4] for each in re.findall(r"\w+", plain(choice).casefold())}
    return not words or any(each[:4] in own for each in words)


def _same_value(content: str, task: Task, value: Value) -> int | None:
    """Return the index of the one choice whose number the statement is in another form: `1,000`, `0.5`, `5 apples`.

    A unit counts where the question or the choice has it.
    """
    first = re.split(rf"[{END_OF_BOX}\n]|[.](?=\s|$)", content)[0]
    said = first.strip()
    said = re.sub(TEXT, lambda mark: task.choices[index(mark[0])], said)
    found = None if re.search(CHOICE, said) else value(said)
    if found is None:
        return None
    same = [
        at
        for at, choice in enumerate(task.choices)
        if value(choice) == found
        and ("%" in choice) == ("%" in said)
        and all(
            word in f"{task.prompt} {choice}".casefold()
            for word in re.findall(r"(?<![\\a-z])[^\W\d_]+", said.casefold())
        )
    ]
    return same[0] if len(same) == 1 and not replaced(content[len(first) :], same[0]) else None


def _without_cheer(text: str, task: Task) -> str:
    """Return the text without pictures that only agree or cheer, unless a choice has one."""
    return text if any(map(_CHEER.search, task.choices)) else _CHEER.sub(" ", text)
