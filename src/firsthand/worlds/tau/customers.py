"""Simulated customers: one by rules, and one played by a model.

The customer of rules tells the whole instruction in the first message, in the first person, gives name, zip code, email
or id when it is asked for, says yes to other questions, and ends the conversation when nothing is asked. It is the same
on every machine, and easier than tau-bench's customer, who tells things bit by bit: that one is played by a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from firsthand.loop.world_model import world_reply
from firsthand.message import assistant, system, user
from firsthand.model import Model
from firsthand.sampling import Sampling

STOP = "###STOP###"
MAX_TURNS = 30
"""Messages of a customer, after which the conversation is over."""
REPEATS = 3
"""Equal messages in a row that end the conversation: a customer who loops."""
GREETING = "Hi! How can I help you today?"
_PERSONS = (
    (r"\byou are\b", "I am"),
    (r"\byou're\b", "I'm"),
    (r"\byou were\b", "I was"),
    (r"\byourself\b", "myself"),
    (r"\byours\b", "mine"),
    (r"\byour\b", "my"),
    (r"\b(to|for|with|of|from|tell|give|show|ask|help) you\b", r"\1 me"),
    (r"\byou\b", "I"),
)


class Customer(Protocol):
    """Writes the first message, and answers the agent's; `STOP` in a message ends the conversation."""

    tokens: int
    """Tokens that a model used to play the customer."""

    async def first(self, greeting: str) -> str:
        """The first message, after the agent's greeting."""

    async def reply(self, said: str) -> str:
        """The answer to what the agent said."""


class RuleCustomer:
    """A customer by rules; see the head of the file."""

    def __init__(self, instruction: str, profile: Mapping[str, str]) -> None:
        """The customer's wish, and the facts that it knows of itself: `user id`, `email`, `name`, `zip`."""
        self.instruction, self.profile = instruction, profile
        self.tokens = self._turns = 0

    async def first(self, greeting: str) -> str:
        """The whole instruction, in the first person."""
        return first_person(self.instruction)

    async def reply(self, said: str) -> str:
        """Facts that are asked for, yes, or the end."""
        self._turns += 1
        asks = "?" in said or re.search(r"\b(please|confirm|provide)\b", said, re.IGNORECASE)
        if not asks or self._turns >= MAX_TURNS:
            return STOP
        wanted = [name for name in self.profile if re.search(rf"\b{name}\b", said, re.IGNORECASE)]
        told = ", ".join(f"my {name} is {self.profile[name]}" for name in wanted)
        confirm = re.search(r"\b(confirm|proceed|go ahead|yes)\b", said, re.IGNORECASE)
        if told and not confirm:
            return f"{told[0].upper()}{told[1:]}."
        return "Yes, please go ahead." + (f" And {told}." if told else "")


class ModelCustomer:
    """A customer that a model plays. Its calls are made by the world, so they are no part of the attempt's budget."""

    def __init__(self, instruction: str, model: Model) -> None:
        """The customer's wish, and the model that plays it."""
        self.model, self.tokens = model, 0
        self._said: list[str] = []
        self._messages = [system(_PART.replace("INSTRUCTION", instruction))]

    async def first(self, greeting: str) -> str:
        """The model's first message."""
        return await self.reply(greeting)

    async def reply(self, said: str) -> str:
        """The model's answer, in one line; the end after too many messages, or the same one again and again."""
        self._messages.append(user(said))
        completion = await world_reply(self.model, tuple(self._messages), Sampling(max_tokens=160, temperature=0.0))
        self.tokens += completion.usage.total_tokens
        text = " ".join(completion.message.text.split())
        self._messages.append(assistant(text))
        self._said.append(text)
        looped = len(self._said) >= REPEATS and len(set(self._said[-REPEATS:])) == 1
        if STOP in text or not text or looped or len(self._said) >= MAX_TURNS:
            return STOP
        return text


_PART = """You play a customer who writes to a company's service agent. You want the following; "you" is the customer:

INSTRUCTION

Write one short message at a time, as that customer, in the first person. Tell only what the agent needs to know now. What is
not written above you do not know: say that you do not remember it. Answer yes when the agent asks you to confirm what you
want. When all that you want is done, or cannot be done, write """ + STOP + " and nothing else."  # fmt: skip


def first_person(instruction: str) -> str:
    """The instruction with `you` turned to `I`."""
    text = instruction
    for pattern, word in _PERSONS:
        text = re.sub(pattern, word, text, flags=re.IGNORECASE)
    return text
