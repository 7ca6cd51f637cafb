"""Returns an attempt as it crossed its guards' borders, for exports and training data.

A trace keeps what guards replaced, so that their verdicts can be read. What leaves the store holds the replacement in its
place: the prompt that a model was sent, the arguments that a tool got, and the answer that was given. A text whose
replacement is not recorded is withheld. A call that was blocked, and its error, stand as the model wrote and read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from firsthand.message import Json, Message, Text, ToolCall, canonical
from firsthand.trace import Call, Event, Node, Trace

_LATIN = "0-9A-Za-zÀ-ɏ"
_IS_LATIN = re.compile(f"[{_LATIN}]")
_SHORT = 8
"""A longer answer is seldom within another word by chance."""


class Turn(NamedTuple):
    """A message of a prompt as a model got it."""

    message: Message
    node: int | None
    """Its node, if it was sent as it stands there; None for a guard's own."""


def passed(trace: Trace) -> Trace:
    """The attempt with a guard's replacement, or a mark of it, in each message that a guard did not let pass."""
    if not any(_verdicts(trace, "prompt", "call", "answer")):
        return trace
    messages = [node.message for node in trace.nodes]
    for index, message in _prompts(trace).items():
        messages[index] = message
    _put_arguments(trace, messages)
    _put_answers(trace, messages)
    return replace(
        trace, nodes=tuple(Node(node.parent, said) for node, said in zip(trace.nodes, messages, strict=True))
    )


def sent_turns(trace: Trace, call: Call) -> tuple[Turn, ...]:
    """The conversation as the model got it in a call, each message with its node; nodes that are not there are left out."""
    listed = _listed(call)
    if listed is None:
        at = call.at if call.at is not None and 0 <= call.at < len(trace.nodes) else None
        listed = list(trace.path(at))
    found: list[Turn] = []
    for each in listed:
        if not isinstance(each, int):
            found.append(Turn(Message.from_json(each), None))
        elif 0 <= each < len(trace.nodes):
            found.append(Turn(trace.nodes[each].message, each))
    return tuple(found)


def is_kept_back(trace: Trace, border: str) -> bool:
    """True if a guard blocked something at a border."""
    return any(event.data.get("action") == "block" for event in _verdicts(trace, border))


def replaced_at(trace: Trace, border: str) -> bool:
    """True if a guard replaced something at a border."""
    return any(event.data.get("action") == "replace" for event in _verdicts(trace, border))


def replaced_texts(trace: Trace) -> list[str]:
    """The texts of prompts that a guard replaced and that are in no node, as of raw prompts."""
    listed = (each for event in _verdicts(trace, "prompt") for each in event.data.get("original") or ())
    return [Message.from_json(each).text for each in listed if isinstance(each, dict)]


def _listed(call: Call) -> list[int | Json] | None:
    """The messages of a call's prompt where a guard replaced some; None where all passed."""
    found = call.detail.get("messages")
    positions = call.detail.get("positions")
    if found is None and isinstance(positions, list) and call.at in positions:  # several prompts, decoded together
        found = call.detail["prompts"][positions.index(call.at)].get("messages")
    return found if isinstance(found, list) else None


def _verdicts(trace: Trace, *borders: str) -> Iterator[Event]:
    """The events of guards that replaced or blocked something at the borders."""
    for event in trace.events:
        if event.kind == "guard" and event.data.get("border") in borders and event.data.get("action") != "pass":
            yield event


def _mark(event: Event) -> Text:
    done = "replaced" if event.data.get("action") == "replace" else "withheld"
    return Text(f"[{done} by the guard {str(event.data.get('guard', '')).partition(':')[0]}]")


def _prompts(trace: Trace) -> dict[int, Message]:
    """What was sent in place of each message that no call sent as it is, by its node.

    What a model said, and a later prompt leaves out, stays.
    """
    whole, sampled, instead = set[int](), set[int](), dict[int, Message]()
    for call in trace.calls:
        sampled |= set(call.nodes)
        if call.kind not in ("generate", "score") or isinstance(call.detail.get("prompt"), str):
            continue
        if (listed := _listed(call)) is None:
            whole |= set(trace.path(call.at)) if call.error is None else set()
            continue
        whole |= {each for each in listed if isinstance(each, int)}
        path = trace.path(call.at)
        if len(path) == len(listed):
            instead |= {
                node: Message.from_json(each) for node, each in zip(path, listed, strict=True) if isinstance(each, dict)
            }
    for event in _verdicts(trace, "prompt"):
        for each in event.data.get("original") or ():
            if isinstance(each, int) and 0 <= each < len(trace.nodes) and each not in sampled:
                instead.setdefault(each, Message(trace.nodes[each].message.role, (_mark(event),)))
    return {node: message for node, message in instead.items() if node not in whole}


def _put_arguments(trace: Trace, messages: list[Message]) -> None:
    """Put into each message the arguments that its tools got."""
    for event in _verdicts(trace, "call"):
        at, name, effect = (event.data.get(key) for key in ("at", "tool", "effect"))
        if event.data.get("action") != "replace" or not isinstance(at, int) or not 0 <= at < len(messages):
            continue
        # a session gives its turns' calls the turn's number in front, and its events keep theirs
        ran = [
            each for each in trace.calls if each.kind == "tool" and each.at == at and each.detail.get("name") == name
        ]
        ran = [each for each in ran if each.id == effect or each.id.endswith(f"/{effect}")] or ran
        asked = [part for part in messages[at].tool_calls if part.name == name]
        same = [part for part in asked if canonical(part.arguments) == canonical(event.data.get("original"))]
        for part in (same or asked)[:1]:
            got = (each.detail["arguments"] for each in ran if isinstance(each.detail.get("arguments"), dict))
            given: Json = next(got, {})
            new = replace(part, arguments=given, invalid=None)
            parts = [new if each is part else each for each in messages[at].parts if isinstance(each, Text | ToolCall)]
            messages[at] = messages[at].edited(*parts)


def _put_answers(trace: Trace, messages: list[Message]) -> None:
    """Put the answer that was given in the place of each sampled message that holds one which a guard kept back.

    Where no message holds it, the last sampled one before the verdict is taken for its draft.
    """
    sampled = sorted({node for call in trace.calls if call.kind == "generate" for node in call.nodes})
    verdicts = list(_verdicts(trace, "answer"))
    for event in verdicts:
        original = event.data.get("original")
        if not isinstance(original, str) or not original.strip():
            continue
        is_last = event.data.get("at") == verdicts[-1].data.get("at")
        given = Text(trace.answer) if is_last and trace.answer is not None else _mark(event)
        holds = _within(original.strip())
        held = [node for node in sampled if holds.search(trace.nodes[node].message.text)]
        for node in held or _drafts(trace, event, sampled):
            messages[node] = messages[node].edited(given)


def _within(answer: str) -> re.Pattern[str]:
    """Finds an answer in a text; a short one not within a word or number, as `no` in `know`."""
    found = re.escape(answer)
    if len(answer) < _SHORT:
        found = (f"(?<![{_LATIN}])" if _IS_LATIN.match(answer) else "") + found
        found += f"(?![{_LATIN}])" if _IS_LATIN.match(answer[-1]) else ""
    return re.compile(found)


def _drafts(trace: Trace, event: Event, sampled: Sequence[int]) -> list[int]:
    """The last sampled message on the way to where an answer was given; of several guards only the first judged a draft."""
    first = next(each for each in _verdicts(trace, "answer") if each.data.get("at") == event.data.get("at"))
    at = event.data.get("at")
    path = trace.path(at) if isinstance(at, int) and 0 <= at < len(trace.nodes) else ()
    return [node for node in path if node in sampled][-1:] if event is first else []
