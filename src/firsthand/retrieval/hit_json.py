"""Hits as JSON objects and back, for journals, traces and endpoints."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit, TrailStep

_FIELDS = ("document", "start", "end", "text", "heading", "parent", "meta")


def hit_to_json(hit: Hit) -> Json:
    """The hit as a JSON object, its chunk's fields beside "id", "score" and "trail"; empty fields are left out."""
    chunk = hit.chunk
    body: Json = {
        "id": hit.id,
        "document": chunk.document,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
    }
    body |= {"heading": chunk.heading} if chunk.heading else {}
    body |= {"parent": chunk.parent} if chunk.parent is not None else {}
    body |= {"meta": dict(chunk.meta)} if chunk.meta else {}
    trail = [[step.retriever, step.rank, float(step.score)] for step in hit.trail]
    return body | {"score": float(hit.score), "trail": trail}


def hit_from_json(body: Json) -> Hit:
    """The hit that `hit_to_json` wrote. It keeps the "id" that was written, also if a guard replaced other fields since."""
    chunk = Chunk(**{name: body[name] for name in _FIELDS if name in body})
    trail = tuple(TrailStep(str(who), int(rank), float(score)) for who, rank, score in body.get("trail", ()))
    id = str(body.get("id", ""))
    return Hit(chunk, float(body["score"]), trail, found_as="" if id == chunk.id else id)
