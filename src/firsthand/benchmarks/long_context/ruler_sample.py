"""Types, word lists and published templates shared by RULER's generators.

Templates, answer prefixes and generated tokens are those of NVIDIA/RULER (scripts/data/synthetic/constants.py, main).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from firsthand.errors import MissingExtra


class RulerTemplate(NamedTuple):
    """A task's prompt, its answer prefix, and the number of tokens to generate."""

    task: str
    prefix: str
    tokens: int


NIAH = RulerTemplate(
    "Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. I will quiz you "
    "about the {type_needle_v} afterwards.\n{context}\nWhat are all the special magic {type_needle_v} for {query} mentioned "
    "in the provided text?",
    " The special magic {type_needle_v} for {query} mentioned in the provided text are",
    128,
)
VT = RulerTemplate(
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all "
    "variables that are assigned the value {query} in the text above.",
    " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned the value "
    "{query}, they are: ",
    30,
)
CWE = RulerTemplate(
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear "
    "most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
    " Answer: The top 10 words that appear most often in the list are:",
    120,
)
FWE = RulerTemplate(
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
    "most frequently appeared words in the above coded text?",
    " Answer: According to the coded text above, the three most frequently appeared words are:",
    50,
)
QA = RulerTemplate(
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the "
    "answer and do not output any other words.\n\nQuestion: {query}",
    " Answer:",
    32,
)


@dataclass(frozen=True)
class RulerSample:
    """One generated problem of a RULER task."""

    input: str
    """The prompt, in the model template of the protocol."""
    prefix: str
    """The beginning of the answer, which the model continues."""
    answers: tuple[str, ...]
    depth: int | None = None
    """Depth of a single needle, in percent of the text, to the nearest ten."""
    cluster: str | None = None
    """Key shared with dependent samples, such as a passage."""

    @property
    def text(self) -> str:
        """Return input and prefix, whose length is measured."""
        return self.input + self.prefix


class SampleKey(NamedTuple):
    """Key of a sample: its task, its length in tokens (generated ones included), and its number there."""

    task: str
    length: int
    number: int


@dataclass(frozen=True)
class SampleGenerator:
    """Makes samples of one task: `make(size, rng, draw)`, longer with the size."""

    make: Callable[[int, Random, SampleKey], RulerSample]
    tokens: int
    """Limit on generated tokens; they are part of the length."""
    unit: str
    """Unit of the size, such as sentences."""
    least: int = 1
    match: Literal["all", "part"] = "all"
    category: str = ""
    """RULER's category: retrieval, multi-hop tracing, aggregation, question answering."""


@cache
def word_list(name: Literal["noun", "adjective", "verb"]) -> tuple[str, ...]:
    """Return a word list of the package wonderwords, which RULER samples from; MissingExtra without it."""
    spec = importlib.util.find_spec("wonderwords")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "assets" / f"{name}list.txt"
        if path.is_file():
            return tuple(word.strip() for word in path.read_text(encoding="utf-8").split("\n") if word.strip())
    raise MissingExtra("wonderwords", "longctx", "RULER, which takes its keys and common words from it")
