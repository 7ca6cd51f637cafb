"""Simulated customers: one by rules, and one played by a model.

The customer of rules tells the whole instruction in the first message, in the first person, gives name, zip code, email
or id when it is asked for, tells the instruction again when it is asked for something else (which? what? when?), says yes to
other questions, waits while the agent says that it will do something, wants nothing else, and ends the conversation when
nothing is asked. It reads English. It is the same on every machine, and easier than tau-bench's customer, who tells things
bit by bit: that one is played by a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from firsthand.errors import WorldFailed
from firsthand.loop.world_model import world_reply
from firsthand.message import assistant, system, user
from firsthand.model import Completion, Model, TokenCapability
from firsthand.sampling import Sampling
from firsthand.tokens.calls.thought_text import CLOSE, OPEN

STOP = "###STOP###"
MAX_TURNS = 30
"""Messages of an agent to its customer, after which the conversation is over."""
REPEATS = 3
"""Equal exchanges in a row, with no tool used between them, after which a customer played by a model says nothing new."""
SAID_TOKENS = 160
"""The most tokens of a message of a model."""
THOUGHT_TOKENS = 2_048
"""The most tokens of a message with the thought before it, where `SAID_TOKENS` end within the thought."""
NO_MORE = "No, that is all."
GREETING = "Hi! How can I help you today?"
_THOUGHT = re.compile(rf"{OPEN}.*?(?:{CLOSE}|\Z)", re.DOTALL)
_REQUEST = re.compile(
    r"\b(?:(?:i|we)(?:['’]ll| will)? (?:also |still )?(?:need|require) (?!to )"
    r"|(?:tell|give|send) (?:me|us) (?:your|the|which|what(?! else))"
    r"|(?:provide|share|specify|state|enter|supply)(?: (?:me|us))?(?: with)? (?:your|the|which|what|(?:an |any )?additional)"
    r"|let (?:me|us) know (?:your|the|which|what|when|where|how))\b",
    re.IGNORECASE,
)
"""Requests for something, without a question mark."""
_POLITE = re.compile(
    r"\b(?:please|confirm|provide|let (?:me|us) know (?:whether|if you(?: want|['’]d like| would like| agree| wish)))\b",
    re.IGNORECASE,
)
"""Other requests."""
_OPEN = re.compile(
    r"(?:^|[.?!:,;\n]\s{0,9}|\b(?:and|so|then|know|ask|me|us)\s{1,9})(?:which|what|when|where|why|who|how)\b"
    r"(?! about| if| do(?:es)? (?:you think|that|this|it))[^.?!\n]{0,300}\?",
    re.IGNORECASE,
)
"""Questions that yes does not answer."""
_AGREES = re.compile(r"\b(?:confirm|proceed|go ahead|yes|your (?:confirmation|approval|consent))\b", re.IGNORECASE)
_MORE = re.compile(
    r"\b(?:(?:any|some)thing (?:else|more|further)|(?:what|how) else (?:can|could|may|do you (?:need|want))"
    r"|any (?:other |more |further )?(?:questions?|requests?|concerns?|issues?)"
    r"|(?:further|more) (?:questions?|requests?|help|assistance)|feel free)\b",
    re.IGNORECASE,
)
"""Offers of more help."""
_WAIT = re.compile(
    r"\b(?:let (?:me|us)(?! know)|(?:one|a) (?:moment|minute|second)|hold on|bear with me|(?:i|we) (?:need|have) to"
    r"|i(?:['’]ll| will)(?! be| not) [a-z]{2,}|i(?:['’]m| am) (?:now |just )?[a-z]{2,}ing)\b",
    re.IGNORECASE,
)
"""Words by which the agent says that it does something next."""
_SENTENCE = re.compile(r"[^.?!\n]+[.?!]*")
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
    patience: int
    """Equal exchanges in a row, with no tool used between them, after which the conversation is over."""

    async def first(self, greeting: str) -> str:
        """The first message, after the agent's greeting."""

    async def reply(self, said: str) -> str:
        """The answer to what the agent said."""


class RuleCustomer:
    """A customer by rules; see the head of the file."""

    def __init__(self, instruction: str, profile: Mapping[str, str]) -> None:
        """The customer's wish, and the facts that it knows of itself: `user id`, `email`, `name`, `zip`."""
        self.instruction, self.profile = instruction, profile
        self.tokens, self.patience = 0, MAX_TURNS
        self._wants_no_more = False

    async def first(self, greeting: str) -> str:
        """The whole instruction, in the first person."""
        self._wants_no_more = False
        return first_person(self.instruction)

    async def reply(self, said: str) -> str:
        """Facts that are asked for, the instruction, yes, that nothing else is wanted, patience, or the end."""
        sentences = [each.strip() for each in _SENTENCE.findall(said) if re.search(r"\w", each)]
        asked = [each for each in sentences if not _MORE.search(each) or _AGREES.search(each) or _REQUEST.search(each)]
        text = "\n".join(asked) if len(asked) < len(sentences) else said
        if _asks(text):
            return self._told(text)
        if _asks(said) and not self._wants_no_more:
            self._wants_no_more = True
            return NO_MORE
        return "OK." if asked and _WAIT.search(asked[-1]) else STOP

    def _told(self, said: str) -> str:
        """The answer to what is asked."""
        wanted = [name for name in self.profile if re.search(rf"\b{name}\b", said, re.IGNORECASE)]
        told = ", ".join(f"my {name} is {self.profile[name]}" for name in wanted)
        if _AGREES.search(said):
            return "Yes, please go ahead." + (f" And {told}." if told else "")
        if told:
            return f"{told[0].upper()}{told[1:]}."
        is_open = _OPEN.search(said) or _REQUEST.search(said)
        return f"As I said: {first_person(self.instruction)}" if is_open else "Yes, please go ahead."


def _asks(said: str) -> bool:
    """True if something is asked of the customer."""
    return "?" in said or _POLITE.search(said) is not None or _REQUEST.search(said) is not None


class ModelCustomer:
    """A customer that a model plays. Its calls are made by the world, so they are no part of the attempt's budget."""

    def __init__(self, instruction: str, model: Model) -> None:
        """The customer's wish, and the model that plays it."""
        self.model, self.tokens, self.patience = model, 0, REPEATS
        self._messages = [system(_PART.replace("INSTRUCTION", instruction))]

    async def first(self, greeting: str) -> str:
        """The model's first message."""
        return await self.reply(greeting)

    async def reply(self, said: str) -> str:
        """The model's answer, in one line and without its thought. WorldFailed if it says nothing."""
        self._messages.append(user(said))
        text = await self._asked(SAID_TOKENS) or await self._asked(THOUGHT_TOKENS)
        self._messages.append(assistant(text))
        return STOP if STOP in text else text

    async def _asked(self, max_tokens: int) -> str:
        """What the model says within so many tokens; empty if they end before, and more may be given."""

        async def taken(completion: Completion) -> Completion:
            is_cut = completion.finish_reason == "length"
            if is_cut and await self._is_in_open_thought(completion.message.text):
                completion = replace(completion, message=assistant(f"{OPEN}{completion.message.text}"))
            if not spoken(completion.message.text) and not (is_cut and max_tokens < THOUGHT_TOKENS):
                why = f"its {max_tokens} tokens ended before" if is_cut else f"it ended by {completion.finish_reason!r}"
                raise WorldFailed(f"{self.model.name}, which plays the customer, said nothing: {why}")
            return completion

        sampling = Sampling(max_tokens=max_tokens, temperature=0.0)
        completion = await world_reply(self.model, tuple(self._messages), sampling, taken=taken)
        self.tokens += completion.usage.total_tokens
        return spoken(completion.message.text)

    async def _is_in_open_thought(self, text: str) -> bool:
        """True if the prompt opened a thought, as some chat templates do, that the text does not close."""
        if CLOSE in text or OPEN in text or not isinstance(self.model, TokenCapability):
            return False
        tail = (await self.model.tokenize(tuple(self._messages)))[-8:]
        return b"".join(self.model.spell(tail)).rstrip().endswith(OPEN.encode())


def spoken(text: str) -> str:
    """A message in one line, without its thoughts, of which the last may be open; empty if nothing else is in it.

    A thought that the prompt opened has no opening tag in the text.
    """
    before, closes, behind = text.partition(CLOSE)
    said = behind if closes and OPEN not in before else text
    return " ".join(_THOUGHT.sub(" ", said).split())


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
