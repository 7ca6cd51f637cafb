"""The routes /search and /answer of a corpus, called without a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import tiny_corpus, write_index
from firsthand import catalog
from firsthand.errors import DataError, TransientError
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.rag_model import RagModel
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.retrieval.search_app import SearchApp, search_app
from replica_scripted import Echo

TEXTS = {"mill.md": "An old place.\nThe mill was built in 1871.\n", "river.md": "The river runs by the old mill.\n"}


def asked(app: Any, path: str, body: Any = None, method: str = "POST") -> tuple[int, dict[str, str], Any, Any]:
    """Status, headers, body, and the request's notes."""
    request = ActiveRequest("r", Client("ann", ClientLimits()), path, "application/json", json.dumps(body).encode())
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": []}
    attach(scope, request)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, None, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(sent[1]["body"]), request.notes


def test_the_best_passages_come_with_their_place_their_document_and_their_trail() -> None:
    app = SearchApp(tiny_corpus(TEXTS, lang="en"), None)
    status, _, body, notes = asked(app, "/search", {"query": "mill built", "search": "lexical", "k": 2})
    assert (status, body["object"], notes) == (200, "list", {})
    first, second = body["data"]
    sha256 = hashlib.sha256(TEXTS["mill.md"].encode()).hexdigest()
    assert first.pop("trail")[0][:2] == ["lexical", 1] and first.pop("score") > second["score"] > 0
    assert first == {"id": first["id"], "document": "mill.md", "start": 14, "end": 41, "text": "The mill was built in 1871.",
                     "meta": {"lang": "en"}, "label": "mill.md:2", "sha256": sha256}  # fmt: skip
    assert (second["document"], second["label"]) == ("river.md", "river.md:1")
    for fields, texts in (
        ({"query": "old", "search": "lexical"}, {"An old place.", "The river runs by the old mill."}),
        ({"query": "old", "search": "lexical", "where": {"document": "river.md"}}, {"The river runs by the old mill."}),
        ({"query": "old", "search": "lexical", "where": {"lang": "de"}}, set()),
        ({"query": "built 1871", "search": "dense", "k": 1}, {"The mill was built in 1871."}),
        ({"query": "built 1871", "k": 1}, {"The mill was built in 1871."}),
    ):
        status, _, body, _ = asked(app, "/search", fields)
        assert status == 200 and {each["text"] for each in body["data"]} == texts, fields
    trails = {name: asked(app, "/search", {"query": "mill", "k": 1} | fields)[2]["data"][0]["trail"]
              for name, fields in (("default", {}), ("hybrid", {"search": "hybrid"}), ("convex", {"search": "convex"}),
                                   ("dense", {"search": "dense"}))}  # fmt: skip
    assert trails["default"] == trails["hybrid"] != trails["convex"] and trails["dense"][0][0] == "dense"
    many = SearchApp(tiny_corpus({f"{at}.md": "the mill\n" for at in range(7)}), None)
    assert len(asked(many, "/search", {"query": "mill"})[2]["data"]) == 5


def test_what_cannot_be_searched_or_answered_is_refused() -> None:
    app = SearchApp(tiny_corpus(TEXTS, vectors=False), None)
    status, headers, body, notes = asked(app, "/search", method="DELETE")
    assert (status, headers["allow"]) == (405, "POST") and notes == {"error": "DELETE is not taken here: use POST"}
    assert body["error"]["message"] == notes["error"]
    status, _, body, _ = asked(app, "/answer", {"question": "q"})
    assert (status, body["error"]["message"]) == (404, "this server has no model that answers: use /search")
    for fields, param in (
        ({"query": ""}, "query"), ({"query": "x" * 10_001}, "query"), ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 101}, "k"), ({"query": "x", "search": "magic"}, "search"), ({"q": "x"}, "q"),
        ({"query": "x", "where": {str(at): 1 for at in range(17)}}, "where"),
    ):  # fmt: skip
        status, _, body, _ = asked(app, "/search", fields)
        assert (status, body["error"]["param"]) == (400, param), fields
    for fields in ({"query": "x" * 10_000, "search": "lexical"}, {"query": "x", "k": 100, "search": "lexical"}):
        assert asked(app, "/search", fields)[0] == 200
    status, _, body, _ = asked(app, "/search", {"query": "x", "search": "dense"})
    assert status == 400 and "the index of notes has no vectors" in body["error"]["message"]
    broken: Any = SearchApp(None, None)  # type: ignore[arg-type]
    status, _, body, notes = asked(broken, "/search", {"query": "x"})
    assert status == 500 and body["error"]["code"] == "internal_error" and "Traceback" in notes["traceback"]

    class Leaves(SearchApp):
        async def search(self, request: Any) -> Any:
            raise ClientLeft

    class Fails(SearchApp):
        async def search(self, request: Any) -> Any:
            raise errors.pop(0)

    errors = [DataError("no such set"), TransientError("busy")]
    for status, message in ((501, "no such set"), (503, "busy")):
        found = asked(Fails(None, None), "/search", {"query": "x"})  # type: ignore[arg-type]
        assert (found[0], found[2]["error"]["message"], found[3]) == (status, message, {"error": message})
    with pytest.raises(ClientLeft):
        asked(Leaves(None, None), "/search", {"query": "x"})  # type: ignore[arg-type]


def test_an_answer_is_that_of_the_model_with_the_conversation_before_it(tmp_path: Path) -> None:
    pattern, options = catalog.pattern("naive:search=lexical")
    index = write_index(tmp_path / "index", TEXTS, vectors=False)
    given: list[Any] = []

    class Asked(RagModel):
        async def ask(self, question: str, history: Any = (), **more: Any) -> Any:
            given.append((question, list(map(tuple, history))))
            return await super().ask(question, history, **more)

    base = Scripted(lambda messages, sampling, index: "It was built in 1871. [1]")
    model = Asked(base, pattern, {**options, "index": str(index)})
    app = SearchApp(tiny_corpus(TEXTS, vectors=False), model)
    status, _, body, _ = asked(app, "/answer", {"question": "When was the mill built?"})
    assert status == 200 and body["citations"][0]["quote"] == "The mill was built in 1871."
    history = [["When?", "Once."], ["Who?", "Nobody."]]
    assert asked(app, "/answer", {"question": "When was the mill built?", "history": history})[0] == 200
    assert given == [("When was the mill built?", []),
                     ("When was the mill built?", [("When?", "Once."), ("Who?", "Nobody.")])]  # fmt: skip
    for turns in ([["one"]], [["a", "b", "c"]], [["a", 1]], ["ab"], [["a", "b"]] * 65, "ab"):
        assert asked(app, "/answer", {"question": "q", "history": turns})[0] == 400, turns
    assert asked(app, "/answer", {"question": "q", "history": [["a", ""]] * 64})[0] == 200
    assert asked(app, "/answer", {})[0] == asked(app, "/answer", {"question": ""})[0] == 400


def test_the_model_and_the_embedder_are_used_once_before_the_first_request() -> None:
    corpus = tiny_corpus(TEXTS)
    loaded: list[str] = []

    class Loads(Echo):
        async def load(self) -> Any:
            loaded.append("loaded")
            return await super().load()

    async def entered(app: Any) -> None:
        async with app.lifespan():
            pass

    embedder: Any = corpus.embedder
    app = search_app(corpus, RagModel(Loads(), None, {}))  # type: ignore[arg-type]
    assert loaded == [] == embedder.asked
    asyncio.run(entered(app))
    assert loaded == ["loaded"] and embedder.asked == ["Hello"]
    for model in (None, RagModel(Scripted(["x"]), None, {})):  # type: ignore[arg-type]
        asyncio.run(entered(search_app(tiny_corpus(TEXTS, vectors=False), model)))
    for model in (None, RagModel(Scripted(["x"]), None, {})):  # type: ignore[arg-type]
        alone = tiny_corpus(TEXTS)
        asyncio.run(entered(search_app(alone, model)))
        own: Any = alone.embedder
        assert own.asked == ["Hello"], "its failure would show at the start"
    assert [app.route_of(path) for path in ("/search", "/answer", "/search/", "/")] == [
        "/search",
        "/answer",
        None,
        None,
    ]
    assert app.work_methods == {"POST"} and app.prefix == ""
