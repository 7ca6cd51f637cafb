"""Reads of a corpus as effects of an attempt: journalled, budgeted, guarded as untrusted results, and in the trace.

A pattern writes `corpus = open_corpus(index).through(effect_of(ctx))` and every search of it is recorded as a call of the
tool `retrieve`, whose items are the hits with scores and trails. A resumed attempt finds them and does not search again.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.retrieval.corpus import Act, Corpus, Effect, open_corpus
from firsthand.retrieval.hit_json import hit_from_json
from firsthand.retrieval.retriever import Hit
from firsthand.tool import Tool
from firsthand.trace import Call, Trace

RETRIEVE = "retrieve"
"""The name of the call in traces, and the tool that guards and rules of approval see."""
_SCHEMA: Json = {
    "type": "object",
    "properties": {"retriever": {"type": "string"}, "query": {"type": "string"}, "k": {"type": "integer"}},
    "required": ["retriever", "query", "k"],
}


def effect_of(ctx: Context, name: str = "documents") -> Effect:
    """The effect whose reads are consultations of the attempt that `ctx` belongs to."""
    spec, private = ToolSpec(RETRIEVE, "Searches the documents.", _SCHEMA), Declaration(readers="user")
    tool = Tool(spec, "read", _no_function, dict, origin=name, declares=private)

    async def effect(retriever: str, arguments: Json, act: Act) -> Sequence[Json]:
        return await ctx.consult(tool, {"retriever": retriever, **arguments}, act)

    return effect


def corpus_in(ctx: Context, index: str) -> Corpus:
    """The corpus at a path, read through the attempt of `ctx`. ConfigError if there is none."""
    corpus = open_corpus(index)
    return corpus.through(effect_of(ctx, f"documents in {corpus.name}"))


def retrievals(trace: Trace) -> list[tuple[Call, list[Hit]]]:
    """The reads of a corpus in a trace, in order, each with its hits."""
    return [
        (call, [hit_from_json(item) for item in call.detail["items"] if "score" in item])
        for call in trace.calls
        if call.kind == "tool" and call.detail.get("name") == RETRIEVE and "items" in call.detail
    ]


def _no_function() -> None:
    raise AssertionError("consult asks the corpus itself")
