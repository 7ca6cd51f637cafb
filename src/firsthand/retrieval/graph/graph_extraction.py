"""Extracts entities and relations from a chunk with a model, under a grammar, with gleanings (Edge et al., 2024, §3.1.2).

A gleaning appends the answer, says that items were missed, and asks again; before every further gleaning the model is asked
whether any are left. An answer that cannot be read fails the chunk with a reason: it never counts as a chunk without
entities.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, ModelError, TransientError
from firsthand.message import Json, Message, user
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.graph.graph_model import GraphModel
from firsthand.retrieval.graph.graph_prompts import (
    ANY_LEFT,
    CONTINUE,
    ENTITY_TYPES,
    extraction_prompt,
    extraction_schema,
)
from firsthand.retrieval.graph.knowledge_graph import ExtractedEntity, ExtractedRelation, Extraction


@dataclass(frozen=True)
class ExtractionSettings:
    """The extractor of chunks."""

    types: tuple[str, ...] = ENTITY_TYPES
    """The types of entities that are looked for."""
    gleanings: int = 1
    """Further passes in which the model is asked for what it missed."""
    max_answer_tokens: int = 2000

    def __post_init__(self) -> None:
        if not self.types or not all(self.types) or self.gleanings < 0 or self.max_answer_tokens < 1:
            raise ConfigError(
                f"types is {','.join(self.types)!r}, gleanings {self.gleanings} and max_answer_tokens "
                f"{self.max_answer_tokens}: give one type or more, 0 or more, and 1 or more"
            )


@dataclass(frozen=True)
class FailedChunk:
    """A chunk that could not be read, and why."""

    chunk: str
    document: str
    reason: str


async def extract(model: GraphModel, chunk: Chunk, settings: ExtractionSettings, fenced: str) -> Extraction:
    """The entities and relations of a chunk. ModelError if an answer cannot be read: the chunk is then failed as a whole."""
    schema = extraction_schema(settings.types)
    messages: list[Message] = [user(extraction_prompt(settings.types, fenced))]
    body, message = await model.ask_json(messages, schema, settings.max_answer_tokens)
    bodies = [body]
    for gleaning in range(settings.gleanings):
        messages += [message, user(CONTINUE)]
        body, message = await model.ask_json(messages, schema, settings.max_answer_tokens)
        bodies.append(body)
        is_last = gleaning == settings.gleanings - 1
        if is_last or await model.ask_choice([*messages, message, user(ANY_LEFT)], ("Y", "N")) != "Y":
            break
    return joined(chunk.id, bodies, settings.types)


def joined(chunk: str, bodies: Sequence[Json], types: Sequence[str]) -> Extraction:
    """The entities and relations of all answers about a chunk, each once. ModelError for an answer of another form.

    An endpoint may not have held an answer to the schema, so that it is checked here.
    """
    entities: dict[tuple[str, str], ExtractedEntity] = {}
    relations: dict[tuple[str, str, str], ExtractedRelation] = {}
    for body in bodies:
        try:
            for each in body["entities"]:
                entity = ExtractedEntity(_text(each, "name"), _text(each, "type"), _text(each, "description"))
                if entity.type in types and entity.name.strip():
                    entities.setdefault((entity.name, entity.type), entity)
            for each in body["relations"]:
                source, target, described = (_text(each, key) for key in ("source", "target", "description"))
                weight = float(each["strength"])
                if math.isnan(weight):
                    raise ValueError("strength is no number")
                weight = min(max(weight, 1.0), 10.0)
                relations.setdefault((source, target, described), ExtractedRelation(source, target, described, weight))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"the answer is not of the schema: {type(error).__name__}: {str(error)[:100]}") from None
    return Extraction(chunk, tuple(entities.values()), tuple(relations.values()))


async def extract_all(
    model: GraphModel,
    chunks: Sequence[Chunk],
    settings: ExtractionSettings,
    fenced: Mapping[str, str],
    keep: Callable[[Chunk, Extraction | FailedChunk], None],
) -> list[FailedChunk]:
    """Reads all chunks, several at a time, and keeps each result as soon as it is there; returns the failed ones.

    LimitExceeded, and faults that every other chunk would meet too (an endpoint that is gone), end it; what was kept stays.
    """
    failed: list[FailedChunk] = []

    async def one(chunk: Chunk) -> None:
        try:
            found: Extraction | FailedChunk = await extract(model, chunk, settings, fenced[chunk.id])
        except (LimitExceeded, TransientError):
            raise
        except FirsthandError as error:
            found = FailedChunk(chunk.id, chunk.document, str(error))
            failed.append(found)
        keep(chunk, found)

    try:
        async with asyncio.TaskGroup() as tasks:
            for chunk in chunks:
                tasks.create_task(one(chunk))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return sorted(failed, key=lambda each: (each.document, each.chunk))


def _text(body: Json, key: str) -> str:
    value = body[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r:.40}")
    return value
