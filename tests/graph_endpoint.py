"""A model that builds a graph by rule and takes no notice of grammars, as an endpoint may."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from firsthand.message import Message, assistant
from firsthand.model import Completion, Sampling, Usage


class Endpoint:
    """A model that takes no notice of a grammar: an answer costs its words, a prompt 100 tokens."""

    name = "scripted:m"

    def __init__(self, reply: Callable[[Sequence[Message]], str]):
        self.reply = reply
        self.asked: list[tuple[Sequence[Message], Sampling]] = []

    async def complete(self, prompt: Sequence[Message], sampling: Sampling, **_: Any) -> list[Completion]:
        self.asked.append((list(prompt), sampling))
        text = self.reply(prompt)
        used = Usage(prompt_tokens=100, completion_tokens=len(text.split()))
        return [Completion(assistant(text), "stop", used)]


def scripted(reply: Callable[[str], Any]) -> Any:
    return Endpoint(lambda messages: reply(messages[-1].text))


def asked(model: Any) -> list[str]:
    return [prompt[-1].text for prompt, _ in model.asked]


def sizes(model: Any) -> list[int]:
    return [sampling.max_tokens for _, sampling in model.asked]


def body(*names: str, types: Sequence[str] = ("person",), **relation: Any) -> str:
    entities = [{"name": name, "type": kind, "description": f"d{name}"} for name in names for kind in types]
    relations = [{"source": "A", "target": "B", "description": "r", "strength": 1, **relation}] if relation else []
    return json.dumps({"entities": entities, "relations": relations})
