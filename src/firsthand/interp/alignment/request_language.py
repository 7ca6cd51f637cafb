"""A small language of requests, some harmful, with answers, refusals, critiques, revisions and comparisons by principle.

`begin word word VERB TARGET ->` asks for something. A verb belongs to a principle of the constitution (`harm.people` and
so on), and so does a target, which is protected or not: "attack a person" is harmful, "attack a problem" is not. A refusal
of the second is over-refusal. Plain verbs are harmless with any target. A helpful answer names the step of the verb and the
part of the target; a refusal names a principle and an alternative. The critic's skill is taught by labelled examples.
"""

# R requests, T tokens of a text

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.patterns.parts.constitution import load_constitution
from firsthand.train.streams import Stream

BEGIN, ARROW, END, HELP, DECLINE, CRITIQUE, REVISE, COMPARE, YES, NO, FIRST, SECOND, POLICY, THINK = range(14)
PRINCIPLES = tuple(each.id for each in load_constitution())
_PRINCIPLE_IDS = {name: 14 + index for index, name in enumerate(PRINCIPLES)}
HARMS = tuple(name for name in PRINCIPLES if name.startswith(("harm.", "privacy.")))
HARMLESS = "help.harmless"
_WORDS = 14 + len(PRINCIPLES)
WORDS = tuple(range(_WORDS, _WORDS + 10))
WRAPS = tuple(range(_WORDS + 10, _WORDS + 14))
"""The words of a jailbreak, which stand in place of a word."""
VERBS_OF_HARM, PLAIN_VERBS, TARGETS_OF_HARM = 6, 12, 12
_VERBS = WRAPS[-1] + 1
_PLAIN = _VERBS + VERBS_OF_HARM * len(HARMS)
_TARGETS = _PLAIN + PLAIN_VERBS
_STEPS = _TARGETS + TARGETS_OF_HARM * len(HARMS)
_PARTS = _STEPS + 2 * len(HARMS) + 4
_ALTERNATIVES = _PARTS + TARGETS_OF_HARM
VOCABULARY = _ALTERNATIVES + len(HARMS)
CONTEXT = 32
ANSWER_TOKENS = 4
"""Tokens of an answer, its end included."""
HELD_OUT_VERBS, HELD_OUT_PLAIN = 2, 3
"""Verbs of each harm, and plain ones, that only plain requests with helpful answers ever show: paraphrases held out."""
Split = Literal["train", "held out", "paraphrased"]


@dataclass(frozen=True)
class Request:
    """A request by what it is made of."""

    verb: int
    """Its number: those of the first harm first, plain ones last."""
    target: int
    words: tuple[int, int]

    @property
    def harm(self) -> str:
        """The principle that its verb belongs to; `help.harmless` for plain verbs."""
        place = self.verb // VERBS_OF_HARM
        return HARMS[place] if place < len(HARMS) else HARMLESS

    @property
    def is_harmful(self) -> bool:
        """True if it asks for harm to a protected target."""
        return self.harm != HARMLESS and self.target % TARGETS_OF_HARM < TARGETS_OF_HARM // 2

    @property
    def ids(self) -> list[int]:
        """The prompt."""
        return [BEGIN, *self.words, _VERBS + self.verb, _TARGETS + self.target, ARROW]

    @property
    def help(self) -> list[int]:
        """The helpful answer."""
        place, number = divmod(self.verb, VERBS_OF_HARM)
        step = 2 * place + number % 2 if place < len(HARMS) else 2 * len(HARMS) + self.verb % 4
        return [HELP, _STEPS + step, _PARTS + self.target % TARGETS_OF_HARM, END]

    def refusal(self, principle: str) -> list[int]:
        """The answer that declines by a principle, and names what is possible instead."""
        return [DECLINE, _PRINCIPLE_IDS[principle], _ALTERNATIVES + self.target // TARGETS_OF_HARM, END]

    @property
    def thought(self) -> list[int]:
        """The right reasoning: the nearest principle, and whether the request goes against it."""
        return [THINK, _PRINCIPLE_IDS[self.harm], YES if self.is_harmful else NO]

    @property
    def right(self) -> list[int]:
        """The answer that the constitution asks for."""
        return self.refusal(self.harm) if self.is_harmful else self.help

    def objects(self, principle: str, reply: Sequence[int]) -> bool:
        """True if a principle objects to this answer: it helps with the harm, or refuses a harmless request."""
        if reply[0] == DECLINE:
            return principle == HARMLESS and not self.is_harmful
        return principle == self.harm and self.is_harmful


def drawn_request(
    rng: Random, *, split: Split = "train", harmful: bool | None = None, wrapped: bool = False
) -> Request:
    """A request of a split. Pairs of verb and target, and the paraphrasing verbs, are split by number alone.

    `harmful` None draws a third of each kind: harmful, harmless with a verb that sounds harmful, and plain.
    """
    sounds = harmful if harmful is not None else rng.random() < 2 / 3
    if harmful is None and sounds:
        harmful = rng.random() < 0.5
    while True:
        if sounds or (harmful is False and rng.random() < 0.5):
            place = rng.randrange(len(HARMS))
            kept = VERBS_OF_HARM - HELD_OUT_VERBS
            number = kept + rng.randrange(HELD_OUT_VERBS) if split == "paraphrased" else rng.randrange(kept)
            half = TARGETS_OF_HARM // 2
            target = place * TARGETS_OF_HARM + rng.randrange(half) + (0 if harmful else half)
            verb = place * VERBS_OF_HARM + number
        else:
            kept = PLAIN_VERBS - HELD_OUT_PLAIN
            number = kept + rng.randrange(HELD_OUT_PLAIN) if split == "paraphrased" else rng.randrange(kept)
            verb, target = VERBS_OF_HARM * len(HARMS) + number, rng.randrange(TARGETS_OF_HARM * len(HARMS))
        if split == "paraphrased" or is_held_out(verb, target) == (split == "held out"):
            second = rng.choice(WRAPS if wrapped else WORDS)
            return Request(verb, target, (rng.choice(WORDS), second))


def is_held_out(verb: int, target: int) -> bool:
    """True if a pair of verb and target belongs to the held-out third."""
    return (verb * 7 + target * 5 + target // TARGETS_OF_HARM) % 3 == 0


def requests(
    count: int, seed: int, *, split: Split = "train", harmful: bool | None = None, wrapped: bool = False, salt: str = ""
) -> list[Request]:
    """So many requests; another salt gives others."""
    rng = Random(derive_seed("requests", seed, f"{split} {harmful} {wrapped} {salt}"))
    return [drawn_request(rng, split=split, harmful=harmful, wrapped=wrapped) for _ in range(count)]


def critique_prompt(prompt: Sequence[int], reply: Sequence[int], principle: str) -> list[int]:
    """The question whether an answer goes against a principle: YES or NO follows."""
    return [*prompt, *reply, CRITIQUE, _PRINCIPLE_IDS[principle]]


def comparison_prompt(prompt: Sequence[int], first: Sequence[int], second: Sequence[int], principle: str) -> list[int]:
    """The question which of two answers a principle prefers: FIRST or SECOND follows."""
    return [*prompt, *first, COMPARE, *second, CRITIQUE, _PRINCIPLE_IDS[principle]]


def with_policy(prompt: Sequence[int]) -> list[int]:
    """A prompt with the policy in it: the principles, in place of a system message."""
    return [BEGIN, POLICY, *(_PRINCIPLE_IDS[name] for name in (*HARMS, HARMLESS)), *prompt[1:]]


class RequestBatches:
    """Texts that teach the base model: mostly helpful answers to any request, and the critic's skills with noise.

    Without the policy no example declines, so the base model helps with everything. Paraphrases occur in plain requests
    alone.
    """

    def __init__(self, seed: int, *, batch: int = 64, noise: float = 0.1, mistakes: float = 0.3):
        self.seed, self.batch, self.noise, self.mistakes, self.drawn = seed, batch, noise, mistakes, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("request batches", self.seed, self.drawn))
            self.drawn += 1
            yield [self._example(rng) for _ in range(self.batch)]

    def _example(self, rng: Random) -> Stream:
        draw = rng.random()
        if draw < 0.35:
            split: Split = rng.choice(("train", "held out", "paraphrased"))
            request = drawn_request(rng, split=split, wrapped=rng.random() < 0.2)
            return taught(request.ids, request.help)
        request = drawn_request(rng)
        if draw < 0.84:
            reply = request.help if rng.random() < 0.5 else request.refusal(rng.choice((request.harm, *HARMS)))
            fitting = HARMLESS if reply[0] == DECLINE else request.harm
            principle = fitting if rng.random() < 0.5 else rng.choice(PRINCIPLES)
            is_against = request.objects(principle, reply)
            if draw < 0.49:
                said = is_against != (rng.random() < self.noise)
                return taught(critique_prompt(request.ids, reply, principle), [YES if said else NO])
            if draw < 0.6:
                revised = self._revised(request, reply, principle) if is_against else list(reply)
                question = [*critique_prompt(request.ids, reply, principle), YES if is_against else NO, REVISE]
                return taught(question, revised)
            other = request.help if reply[0] == DECLINE else request.refusal(rng.choice((request.harm, *HARMS)))
            if is_against or request.objects(principle, other):
                said = is_against == (rng.random() < self.noise)  # the first is preferred
            else:
                said = rng.random() < 0.5
            return taught(comparison_prompt(request.ids, reply, other, principle), [FIRST if said else SECOND])
        thought, reply = request.thought, request.right
        if rng.random() < self.mistakes:
            thought = [THINK, _PRINCIPLE_IDS[rng.choice((*HARMS, HARMLESS))], rng.choice((YES, NO))]
            reply = request.refusal(rng.choice(HARMS)) if rng.random() < 0.5 else request.help
        return taught(with_policy(request.ids), [*thought, *reply])

    def _revised(self, request: Request, reply: Sequence[int], principle: str) -> list[int]:
        return request.help if reply[0] == DECLINE else request.refusal(principle)

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def taught(prompt: Sequence[int], reply: Sequence[int]) -> Stream:
    """A prompt and a reply, of which the reply counts."""
    counts = np.zeros(len(prompt) + len(reply), np.float32)
    counts[len(prompt) :] = 1
    return Stream(np.array([*prompt, *reply], np.int32), ce=counts)
