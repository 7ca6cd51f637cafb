"""A simulated model for the benchmark `sessions`: reads its sentences without a mistake, and nothing that it is not shown.

It answers from the facts in its prompt, by date; extracts facts as JSON; summarises by keeping the last sentences that state
a fact; and moves data by MemGPT's tools. Its accuracy is that of the memory that fills its prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from firsthand.message import Message, ToolCall, ToolResult, assistant
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted

FACT = re.compile(r"The ([a-z ]{2,40}) of ([A-Z]\w+ [A-Z]\w+) is (?:(no longer) )?([A-Z]\w+)(?: now)?\.")
QUESTION = re.compile(r"What (?:is|was) the ([a-z ]{2,40}) of ([A-Z]\w+ [A-Z]\w+)(?: on (\d{4}-\d\d-\d\d))?\?")
UNKNOWN = "unknown"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_END = "9999-99-99"


class SeenFact(NamedTuple):
    """A sentence with a fact, and the date above it."""

    date: str
    attribute: str
    subject: str
    value: str
    withdrawn: bool


def facts_seen(text: str) -> list[SeenFact]:
    """The facts of a text in order, each under the first date before it on its line.

    Without one it is under the first date that stands before the facts of a line above, of the last such line.
    """
    found, date = [], ""
    for line in text.split("\n"):
        matches = list(FACT.finditer(line))
        if (dated := _DATE.search(line[: matches[0].start()] if matches else line)) and not QUESTION.search(line):
            date = dated.group()
        for match in matches:
            attribute, subject, withdrawn, value = match.groups()
            own = _DATE.search(line[: match.start()])
            found.append(SeenFact(own.group() if own else date, attribute, subject, value, bool(withdrawn)))
    return found


def answer_to(question: str, facts: Sequence[SeenFact]) -> str | None:
    """The value that the facts give to a question, `unknown` if they give none; None if it is no such question."""
    asked = QUESTION.search(question)
    if asked is None:
        return None
    attribute, subject, day = asked.groups()
    fit = [
        each for each in facts if (each.attribute, each.subject) == (attribute, subject) and each.date <= (day or _END)
    ]
    last = max(enumerate(fit), key=lambda pair: (pair[1].date, pair[0]), default=None)
    return UNKNOWN if last is None or last[1].withdrawn else last[1].value


def _reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str | Message:
    text = messages[-1].text
    if text.endswith("Facts:"):
        return json.dumps(
            [
                {key: getattr(each, key) for key in ("subject", "attribute", "value", "withdrawn")}
                for each in facts_seen(text)
            ]
        )
    if text.endswith("Summary:"):
        return _summary(text, sampling.max_tokens)
    asked = next((m for m in reversed(messages) if m.role == "user" and QUESTION.search(m.text)), None)
    if asked is None:
        return _saved(messages)
    shown = "\n".join(message.text for message in messages if message is not asked)
    known = answer_to(asked.text, facts_seen(shown))
    later = messages[max(place for place, message in enumerate(messages) if message is asked) :]
    searched = any(isinstance(part, ToolResult) for message in later for part in message.parts)
    if not searched and _offers_search(messages):
        found = QUESTION.search(asked.text)
        assert found is not None
        query = f"{found[1]} {found[2]}"
        return assistant("", ToolCall("search", "archival_memory_search", {"query": query, "request_heartbeat": True}))
    return known or UNKNOWN


def _offers_search(messages: Sequence[Message]) -> bool:
    """True if the conversation begins with MemGPT's core blocks."""
    return any("Core memory: the blocks" in message.text for message in messages)


def _saved(messages: Sequence[Message]) -> str | Message:
    """Calls that archive the facts of the last session, each with its date; then a word that ends the turn."""
    places = [place for place, each in enumerate(messages) if each.role == "user" and each.text.startswith("[")]
    if not places or any(isinstance(part, ToolResult) for each in messages[places[-1] :] for part in each.parts):
        return "Noted."
    contents = [f"{each.date}: {sentence(each)}" for each in facts_seen(messages[places[-1]].text)]
    calls = [
        ToolCall(f"save{number}", "archival_memory_insert", {"content": content, "request_heartbeat": True})
        for number, content in enumerate(contents)
    ]
    return assistant("", *calls) if calls else "Noted."


def sentence(fact: SeenFact) -> str:
    """The sentence that states a fact."""
    return f"The {fact.attribute} of {fact.subject} is {'no longer ' if fact.withdrawn else ''}{fact.value}."


def _summary(text: str, most: int) -> str:
    """The last facts with their dates that take at most `most` words."""
    lines = [f"{each.date}: {sentence(each)}" for each in facts_seen(text)]
    kept: list[str] = []
    for line in reversed(list(dict.fromkeys(lines))):
        if sum(len(each.split()) for each in [*kept, line]) > most:
            break
        kept.append(line)
    return "\n".join(reversed(kept)) or "Nothing was stated."


def session_player() -> Scripted:
    """The model, which the command line names `sim:sessions`."""
    return Scripted(_reply, name="scripted:sessions", fingerprint="session_player 1")
