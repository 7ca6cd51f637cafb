"""Retrievers that have a model rewrite the query first: HyDE, multi-query (RAG-Fusion), step-back, and routing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from firsthand.errors import ConfigError
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.retriever import Hit, Query, Retriever
from firsthand.retrieval.retrievers.fusion import reciprocal_rank_fusion
from firsthand.retrieval.writer import Writer

HYDE_TEMPERATURE = 0.7
HYDE_TOKENS = 512
HYDE_STOP = ("\n\n\n",)
HYDE_PROMPT = "Write a short passage that answers the question.\n\nQuestion: {query}\n\nPassage:"
STEP_BACK_PROMPT = (
    "Write a more general question whose answer is the background that one needs for this question. Write the question "
    "only.\n\nQuestion: {query}"
)
_BULLET = re.compile(r"^\s*(?:[-*](?=\s)|•)\s*")
_ONLY_ITEM = re.compile(rf"{_BULLET.pattern}|^\s*\(?1[.)]\s+")
_ITEM = re.compile(rf"{_BULLET.pattern}|^\s*\(?\d{{1,2}}[.):](?!\d)\s*")
Choose = Callable[[str, Sequence[str]], Awaitable[str]]
"""Chooses one of several labels for a query."""


def hyde(retriever: Retriever, corpus: Corpus, writer: Writer, *, n: int = 8, prompt: str = HYDE_PROMPT) -> Retriever:
    """HyDE (Gao et al., 2022): searches with v = (f(query) + sum f(d_i)) / (n + 1) for n passages d_i that a model makes up.

    Settings are the reference's: 8 passages at temperature 0.7, up to 512 tokens, ended by two blank lines. The mean is
    brought to length 1. `retriever` gets the query with that vector; lexical search keeps the query's words.
    """
    if n < 1:
        raise ConfigError(f"n is {n}: have 1 passage or more written")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        asked, settings = prompt.format(query=query.text), {"temperature": HYDE_TEMPERATURE, "stop": HYDE_STOP}
        made_up = await _written(query, writer, asked, n=n, max_tokens=HYDE_TOKENS, **settings)
        own = await corpus.embed([query.text])
        passages = await corpus.embed(made_up, documents=True)
        mean = np.concatenate([own, passages]).mean(axis=0)
        length = float(np.linalg.norm(mean))
        vector = tuple(float(value) for value in mean / length) if length else tuple(map(float, own[0]))
        return await retriever(replace(query, vectors=(vector,)), k)

    return found


def multi_query(
    retriever: Retriever,
    writer: Writer,
    *,
    n: int = 4,
    constant: float = 60.0,
    pool: int = 50,
    temperature: float = 0.7,
) -> Retriever:
    """Multi-query, or RAG-Fusion: the query and up to `n` rewritings of it are searched, and their rankings fused by RRF.

    Rewritings that repeat one another or the query are searched once; if the model writes none, the query is.
    """
    if n < 1:
        raise ConfigError(f"n is {n}: have 1 rewriting or more written")
    asked = f"Write {n} different search queries for the question, one a line. Write the queries only.\n\nQuestion: "

    async def found(query: Query, k: int) -> Sequence[Hit]:
        (said,) = await _written(query, writer, asked + query.text, temperature=temperature, max_tokens=64 * n)
        texts = distinct_lines([query.text, *lines_of(said)])[: n + 1]
        rankings = [await retriever(replace(query, text=text, vectors=()), max(pool, k)) for text in texts]
        return reciprocal_rank_fusion(rankings, constant=constant)[:k]

    return found


def step_back(retriever: Retriever, writer: Writer, *, constant: float = 60.0, pool: int = 50) -> Retriever:
    """Step-back prompting (Zheng et al., 2023): a more general question is searched too, and both rankings are fused."""

    async def found(query: Query, k: int) -> Sequence[Hit]:
        asked = STEP_BACK_PROMPT.format(query=query.text)
        (said,) = await _written(query, writer, asked, temperature=0.0, max_tokens=64)
        texts = distinct_lines([query.text, *lines_of(said, numbered=False)])[:2]
        rankings = [await retriever(replace(query, text=text, vectors=()), max(pool, k)) for text in texts]
        return reciprocal_rank_fusion(rankings, constant=constant)[:k]

    return found


def routed(choose: Choose, retrievers: Mapping[str, Retriever]) -> Retriever:
    """Asks the one retriever whose label is chosen for the query. ConfigError if another label comes back."""
    if not retrievers:
        raise ConfigError("there is no retriever to route to: give one or more, each under its label")

    async def found(query: Query, k: int) -> Sequence[Hit]:
        label = await choose(query.text, tuple(retrievers))
        if label not in retrievers:
            raise ConfigError(f"the route {label!r} was chosen for a query: {', '.join(retrievers)} were expected")
        return await retrievers[label](query, k)

    return found


def by_likelihood(writer: Writer, about: Mapping[str, str]) -> Choose:
    """Chooses the label that is most probable as a model's next words, the first of equals. `about` describes labels."""

    async def choose(query: str, labels: Sequence[str]) -> str:
        kinds = "\n".join(f"- {label}: {about.get(label, label)}" for label in labels)
        prompt = f"Where is this to be looked up?\n{kinds}\n\nQuestion: {query}\n\nWrite the name only."
        logprobs = await writer.logprobs(prompt, labels)
        return labels[max(range(len(labels)), key=logprobs.__getitem__)]

    return choose


async def _written(query: Query, writer: Writer, prompt: str, **settings: Any) -> list[str]:
    """Return the model's text, or the one it wrote for the same query when it was asked for fewer hits."""
    if query.written is None:
        return await writer.write(prompt, **settings)
    if prompt not in query.written:
        query.written[prompt] = await writer.write(prompt, **settings)
    return query.written[prompt]


def lines_of(text: str, *, numbered: bool = True) -> list[str]:
    """The lines that a model wrote as a list, without bullets, numbers and quotation marks; at most 400 characters each.

    With `numbered` False, as where one line was asked for, a number that begins it stays, but for `1.`: it may be a word.
    """
    mark = _ITEM if numbered else _ONLY_ITEM
    lines = (mark.sub("", line).strip().strip("\"'“”").strip()[:400] for line in text.splitlines())
    return [line for line in lines if line and not line.endswith(":")]


def distinct_lines(lines: Sequence[str]) -> list[str]:
    """The lines that differ by more than case and space, each where it stands first."""
    found: dict[str, str] = {}
    for line in lines:
        found.setdefault(" ".join(line.casefold().split()), line)
    return list(found.values())
