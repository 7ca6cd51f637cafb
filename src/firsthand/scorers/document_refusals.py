"""Reads whether an answer says that the documents do not answer, and gives no answer beside that.

Every clause is looked at: it may refuse, in words of a refusal and of the question, or tell which subjects the documents
have. Any other clause is taken for an answer. English alone.
"""

from __future__ import annotations

import re

_SAYS = re.compile(r"not in the (?:documents|passages)", re.IGNORECASE)
_CITED = re.compile(r"\[(?:\d+(?:, *\d+)*|unsupported)\]")
_SENTENCE = re.compile(r"(?<![.!?;:…\n])(?:[.!?;:…\n]++(?=\s|$|[\"'*)])|[.!?;:…]++(?=\n))")
_CLAUSE = re.compile(
    r"[,;:()\[\]—–]|\b(?:but|though|although|yet|while|whereas|and|so|because|since|as|that)\b(?!['’])", re.IGNORECASE
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_DENIES = re.compile(
    r"n['’]t\b|\b(?:not|no|none|nothing|nowhere|never|neither|nor|cannot|unable|without)\b", re.IGNORECASE
)
_TELLS_SUBJECTS = re.compile(
    r"\W*(?:(?:however|but|instead|sorry|unfortunately)\W+)?(?:the|these|those|all|they|most|passages|documents)\b[^,:]{0,40}?"
    r"\b(?:(?:only|mainly|mostly|just|do)\s+)?(?:mention|describe|discuss|cover|concern|treat|deal\s+with|focus\s+on|speak\s+of"
    r"|talk\s+about|are\s+(?:only\s+|mainly\s+)?about)\b(?!.*\b(?:that|it|is|was|are|were|as|answer|answers|namely)\b)",
    re.IGNORECASE,
)
# What a refusal is made of, beside the words of its question.
_REFUSAL_WORDS = """
a an the this that these those it its i i'm we my your you there here any all of in on from for to by with about at
or either is are was were be been am do does did don't doesn't didn't isn't aren't wasn't weren't can can't cannot
could couldn't have has had hasn't haven't not no none nothing nowhere never neither nor unable without answer
answers answered question questions information detail details fact facts mention mentions mentioned state states
stated say says said tell tells told find finds found give gives given provide provides provided contain contains
contained include includes included specify specifies specified answerable present available determine know known
see seen sure appear document documents passage passages text texts context source sources excerpt excerpts
quotation quotations retrieved above below alone enough sorry unfortunately apologies afraid however but and
therefore so thus based only just simply directly explicitly what who when where which whether how why if anything
anywhere such asked relevant that's it's there's
"""
_WORDS = frozenset(_REFUSAL_WORDS.split())
_ANSWERS_ALONE = frozenset(["no", "none", "nothing", "nowhere", "never"])


def says_not_in_documents(text: str) -> bool:
    """Return whether a text says anywhere that something is not in the documents or passages."""
    return _SAYS.search(text) is not None


def refuses(text: str, question: str) -> bool:
    """Return whether a text says that the documents do not answer the question, and gives no answer beside that."""
    asked = {each.casefold() for each in _WORD.findall(question)}
    return says_not_in_documents(text) and not any(
        _is_answer(sentence, asked) for sentence in _SENTENCE.split(_CITED.sub(" ", text))
    )


def _is_answer(sentence: str, asked: set[str]) -> bool:
    numbers = {each for each in _words(sentence) if not each.isalpha() and "'" not in each}
    if _TELLS_SUBJECTS.match(sentence) and numbers <= asked:
        return False
    return any(_answers(_words(clause), asked, clause) for clause in _CLAUSE.split(sentence))


def _answers(words: set[str], asked: set[str], clause: str) -> bool:
    allowed = _WORDS | asked if _DENIES.search(clause) else _WORDS
    return bool(words) and (words <= _ANSWERS_ALONE or not words <= allowed)


def _words(text: str) -> set[str]:
    return {each.casefold().replace("’", "'") for each in _WORD.findall(text)}
