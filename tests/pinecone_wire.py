"""A server of Pinecone's data plane on this machine: its routes, JSON bodies and filters, over records in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np

COMPARE = {
    "$in": lambda value, given: value in given,
    "$nin": lambda value, given: value is not None and value not in given,
    "$gte": lambda value, given: isinstance(value, float) and value >= given,
    "$lte": lambda value, given: isinstance(value, float) and value <= given,
    "$gt": lambda value, given: isinstance(value, float) and value > given,
    "$lt": lambda value, given: isinstance(value, float) and value < given,
    "$exists": lambda value, given: (value is not None) == given,
}


def passes(metadata: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """True if a record passes a filter."""
    [(name, body)] = wanted.items()
    if name in ("$and", "$or"):
        assert body, "Pinecone refuses empty lists"
        return (all if name == "$and" else any)(passes(metadata, each) for each in body)
    [(sign, given)] = body.items()
    assert sign != "$in" or given, "Pinecone refuses empty lists"
    return COMPARE[sign](metadata.get(name), given)


class Namespace:
    """Pinecone's data plane as a client object over a dict, with the filters of the server below."""

    def __init__(self) -> None:
        self.points: dict[str, Any] = {}
        self.calls: list[tuple[str, int]] = []

    def upsert(self, namespace: str, vectors: list[Any]) -> None:
        assert namespace == "space"
        self.calls.append(("upsert", len(vectors)))
        self.points |= {each["id"]: SimpleNamespace(**each) for each in vectors}

    def delete(self, namespace: str, ids: list[str]) -> None:
        self.calls.append(("delete", len(ids)))
        for id in ids:
            self.points.pop(id, None)

    def fetch(self, namespace: str, ids: list[str]) -> Any:
        self.calls.append(("fetch", len(ids)))
        return SimpleNamespace(vectors={id: self.points[id] for id in ids if id in self.points})

    def fetch_by_metadata(self, namespace: str, filter: Any, limit: int, pagination_token: str = "0") -> Any:
        found = [each for each in self.points.values() if passes(each.metadata, filter)]
        first = int(pagination_token)
        page = {each.id: each for each in found[first : first + limit]}
        more = SimpleNamespace(next=str(first + limit)) if first + limit < len(found) else None
        return SimpleNamespace(vectors=page, pagination=more)

    def query(self, namespace: str, vector: list[float], top_k: int, filter: Any) -> Any:
        self.calls.append(("query", top_k))
        found = [each for each in self.points.values() if passes(each.metadata, filter)]
        scored = sorted(((float(np.dot(each.values, vector)), each.id) for each in found), reverse=True)
        return SimpleNamespace(matches=[SimpleNamespace(id=id, score=score) for score, id in scored[:top_k]])


class Handler(BaseHTTPRequestHandler):
    records: dict[str, dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        route = urlparse(self.path).path
        if route == "/vectors/upsert":
            self.records.update({each["id"]: each for each in body["vectors"]})
            self.answer({"upsertedCount": len(body["vectors"])})
        elif route == "/vectors/delete":
            for id in body["ids"]:
                self.records.pop(id, None)
            self.answer({})
        elif route == "/vectors/fetch_by_metadata":
            found = [each for each in self.records.values() if passes(each["metadata"], body["filter"])]
            first = int(body.get("paginationToken") or 0)
            last = first + body["limit"]
            more = {"pagination": {"next": str(last)}} if last < len(found) else {}
            self.answer({"vectors": {each["id"]: each for each in found[first:last]}, "namespace": "", **more})
        else:
            assert route == "/query"
            query = np.array(body["vector"])
            found = [each for each in self.records.values() if passes(each["metadata"], body["filter"])]
            scored = sorted(((float(np.dot(each["values"], query)), each["id"]) for each in found), reverse=True)
            self.answer(
                {"matches": [{"id": id, "score": score} for score, id in scored[: body["topK"]]], "namespace": ""}
            )

    def do_GET(self) -> None:
        ids = parse_qs(urlparse(self.path).query)["ids"]
        self.answer({"vectors": {id: self.records[id] for id in ids if id in self.records}, "namespace": ""})

    def answer(self, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def pinecone_server() -> Iterator[str]:
    """The address of a server without records."""
    handler = type("OwnHandler", (Handler,), {"records": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
