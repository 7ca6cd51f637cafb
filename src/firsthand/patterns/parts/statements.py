"""Finds statements of an answer: `the answer is X`, `Answer: X`, `the answer to the question is X`, `the answer would be X`.

Looks at the words between `answer` and X. What stands before and behind a statement is `taken_back.py`'s.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from firsthand.patterns.parts.taken_back import BEFORE_CHARS, asserts

_OF_WHAT = (
    r"(?:,?[ \t]+(?:here|then|therefore|thus)\b,?"
    r"|[ \t]+to[ \t]+(?:the|this|your|our)[ \t]+(?:question|problem|exercise|task|puzzle)\b)"
)
_ALONE = r"[-−$*]*\d[\d,.]{0,40}[*%]*(?:[.,;:!)]|$|\n)"  # not "the answer's 5 digits"
STATED = re.compile(
    rf"(?:final[ \t]+)?answer\b(?:\*\*|[\"'])?(?:{_OF_WHAT}?[ \t]+is\b|[ \t]*[:=]|['’]s(?=[ \t]+{_ALONE})"
    rf"|{_OF_WHAT}?[ \t]+(?:equals|comes[ \t]+(?:out[ \t]+)?to|turns[ \t]+out[ \t]+to[ \t]+be)\b"
    r"|(?:(?<=^Answer)|(?<=\nAnswer)|(?<=^Final Answer)|(?<=\nFinal Answer))[ \t]+[-–—][ \t]+(?=[$*]*\d))"
    r"(?:\*\*)?[ \t]*:?[ \t]*([^\n]*)",
    re.IGNORECASE,
)
"""States an answer; its group is the rest of the line."""
STATED_ABROAD = re.compile(
    r"(?:(?:respuesta|resposta|risposta|réponse|antwort)(?:[ \t]+(?:finale?|correct[ae]))?"
    r"(?:[ \t]+(?:es|é|è|est|ist|lautet)(?![^\W_])|[ \t]*[:：])|ответ[ \t]*[:—-]"
    r"|(?:答案|答え|정답)[ \t]*(?:是|为|為|は|은|：|:){1,3}|الجواب[ \t]+هو)(?:\*\*)?[ \t]*:?[ \t]*([^\n]*)",
    re.IGNORECASE,
)
"""The same in other languages."""
TAKEN_BACK_ABROAD = re.compile(
    r"\b(?:espera|espere|esper[ae]d|aspetta|attends|attendez|warte|moment|perd[oó]n|pardon|désolé|scusa|desculpe"
    r"|correc\w+|corrig\w+|korrektur|стоп|подожди\w*|исправ\w+|nein|nicht|kein\w*|falsch\w*|fals[oa]|faux|non|não|нет"
    r"|неверно|aber|sondern|vielmehr|pero|sino|mejor|en[ \t]+realidad|mais|plutôt|en[ \t]+fait|anzi|però|mas|aliás"
    r"|на[ \t]+самом[ \t]+деле|но)\b|(?:[.,;!?–—-][ \t]*|^)no\b"
    r"|等等|等一下|不|更正|其实|但|待って|いや|いいえ|違|しかし|訂正|잠깐|아니|하지만|لكن",
    re.IGNORECASE,
)
"""Takes a statement in another language back, or may."""
_EXPECTED = re.compile(
    rf"(?:final[ \t]+)?answer\b{_OF_WHAT}?[ \t]+(?:would|should|will|must)(?:[ \t]+(?:then|therefore|thus))?[ \t]+be\b"
    r"[ \t]*:?[ \t]*([^\n]*)",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|suppos\w+|assum\w+|without|had|were|otherwise|instead|with|then"
    r"|in[ \t]+(?:that|this|which)[ \t]+case)\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"\b(?:but|however|though|although|yet|still|instead|actually|rather|unless|were|had|did|otherwise|fact|really|reality"
    r"|not|only|wrong|incorrect|except|without)\b|n['’]t\b",
    re.IGNORECASE,
)


def expected(text: str) -> Iterator[re.Match[str]]:
    """The last `the answer would be X` (`should`, `will`, `must`), if no condition is before it and no contrast behind.

    `If he had worked, the answer would be 5` and `the answer would be 5, but he lost one` state none.
    """
    last = deque(_EXPECTED.finditer(text), maxlen=1)
    found = last[0] if last else None
    if found is None or _CONTRAST.search(text, found.start(1)):
        return
    before = text[: found.start()][-BEFORE_CHARS:]
    sentence = re.split(r"[.!?…](?=\s|$)|\n", before)[-1]
    if found[1].strip() and asserts(before) and not _CONDITION.search(sentence):
        yield found
