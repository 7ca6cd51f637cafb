"""POST /search and POST /answer as an app: the hits of a query, and an answer whose citations are data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.types import Receive, Scope, Send

from firsthand.message import Json
from firsthand.model import TokenCapability
from firsthand.retrieval.answers.citations import label_of, locate
from firsthand.retrieval.answers.rag_model import RagModel
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.hit_json import hit_to_json
from firsthand.retrieval.retriever import Query
from firsthand.retrieval.retrievers.searches import SEARCHES
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.admission.charged_steps import Charge, ChargedSteps, charge_nobody
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import Reply, note_bug, refused, reply
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.openai.request_schema import Wire, read

MAX_HITS = 100
MAX_QUERY_CHARS = 10_000
MAX_TURNS = 64
ROUTES = ("/search", "/answer")
Text = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
Turn = Annotated[tuple[str, str], Field(strict=False)]
"""A question and its answer: a list of two texts, since JSON has no tuples."""


class SearchRequest(Wire):
    """A query and how it is searched."""

    query: Text
    k: Annotated[int, Field(ge=1, le=MAX_HITS)] = 5
    search: Literal["dense", "lexical", "hybrid", "convex"] = "hybrid"
    where: Annotated[dict[str, Any], Field(max_length=16)] | None = None


class AnswerRequest(Wire):
    """A question, and the questions and answers before it."""

    question: Text
    history: Annotated[list[Turn], Field(fail_fast=True, max_length=MAX_TURNS)] | None = None


class SearchApp:
    """Answers /search from a corpus, and /answer from a RagModel."""

    def __init__(self, corpus: Corpus, model: RagModel | None, charge: Charge = charge_nobody):
        self._corpus, self._model, self._charge = corpus, model, charge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an error becomes a refusal, and a bug goes to the log."""
        request = request_of(scope)
        answer: Reply
        try:
            if scope["method"] != "POST":
                raise Refusal(405, f"{scope['method'][:20]} is not taken here: use POST", headers={"allow": "POST"})
            answer = await (self.search(request) if scope["path"].endswith("/search") else self.answer(request))
        except ClientLeft:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            request.notes["error"] = refusal.message
            if refusal.code == "internal_error":
                note_bug(request, error)
            answer = refused(refusal)
        await answer(scope, receive, send)

    async def search(self, request: ActiveRequest) -> Reply:
        """The best passages of a query, each with its place, score and trail."""
        body = read(SearchRequest, request.json())
        hits = await SEARCHES[body.search](self._corpus)(Query(body.query, body.where or {}), body.k)
        places = await locate(self._corpus, hits)
        listed: list[Json] = [
            hit_to_json(hit) | {"label": label_of(hit, place, hit.chunk.start), "sha256": place.sha256}
            for hit, place in zip(hits, places, strict=True)
        ]
        return reply({"object": "list", "data": listed})

    async def answer(self, request: ActiveRequest) -> Reply:
        """The answer with its citations as data: document, hash, span, quotation and place."""
        if self._model is None:
            raise Refusal(404, "this server has no model that answers: use /search")
        body = read(AnswerRequest, request.json())
        charged = ChargedSteps(self._charge, request.client.name)
        try:
            return reply(await self._model.ask(body.question, body.history or (), listener=charged))
        except asyncio.CancelledError:  # the client left, or its time was over
            charged.cut()
            raise


def search_app(corpus: Corpus, model: RagModel | None, charge: Charge = charge_nobody) -> MountedApp:
    """The two routes; the model and the embedder are loaded before the first request."""

    @asynccontextmanager
    async def loaded() -> AsyncGenerator[None, None]:
        if corpus.embedder is not None:
            await corpus.embedder.embed(["Hello"])
        if model is not None and isinstance(model.base, TokenCapability):
            await model.base.load()
        yield

    lifespan: Callable[[], AbstractAsyncContextManager[object]] = loaded
    return MountedApp(
        SearchApp(corpus, model, charge),
        route_of=lambda path: path if path in ROUTES else None,
        work_methods=frozenset({"POST"}),
        lifespan=lifespan,
    )
