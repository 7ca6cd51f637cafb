"""A server of Weaviate's REST and GraphQL interfaces on this machine: routes, bodies and filters, over objects in memory.

Queries are parsed by graphql-core; what the adapter does not ask for is refused, as by the service.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse
from uuid import UUID

import numpy as np

UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def passes(properties: dict[str, Any], where: dict[str, Any]) -> bool:
    """True if an object passes a filter."""
    sign = where["operator"]
    if sign in ("And", "Or"):
        assert where["operands"], "Weaviate refuses empty operands"
        return (all if sign == "And" else any)(passes(properties, each) for each in where["operands"])
    [name], given = where["path"], where.get("valueText", where.get("valueTextArray"))
    value = properties[name]
    if sign == "ContainsAny":
        assert isinstance(given, list) and given, "Weaviate refuses empty lists"
        return bool(set(given) & set(value if isinstance(value, list) else [value]))
    assert isinstance(given, str), f"{sign} compares one text"
    return {"Equal": value == given, "NotEqual": value != given, "GreaterThan": value > given}[sign]


def plain(node: Any) -> Any:
    """A GraphQL literal as Python values."""
    kind = node.kind
    if kind == "list_value":
        return [plain(each) for each in node.values]
    if kind == "object_value":
        return {each.name.value: plain(each.value) for each in node.fields}
    return {"int_value": int, "float_value": float}.get(kind, str)(node.value)


class Handler(BaseHTTPRequestHandler):
    objects: dict[str, dict[str, Any]]
    classes: dict[str, dict[str, Any]]
    asked: list[tuple[str, str, Any]]
    answers: list[tuple[int, Any]]
    """Replies that are given before the server's own."""
    key = ""

    def handle_one(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        route = urlparse(self.path).path
        self.asked.append((self.command, route, body))
        if self.answers:
            self.answer(*self.answers.pop(0))
        elif self.key and self.headers.get("Authorization") != f"Bearer {self.key}":
            self.answer(401, {"code": 401, "message": "anonymous access not enabled"})
        else:
            self.answer(*self.own(self.command, route, body))

    do_GET = do_POST = do_DELETE = handle_one  # noqa: N815

    def own(self, method: str, route: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            found = self.classes.get(route.removeprefix("/v1/schema/"))
            return (404, b"") if found is None else (200, found)
        if (method, route) == ("POST", "/v1/schema"):
            self.classes[body["class"]] = body
            return 200, body
        if (method, route) == ("POST", "/v1/batch/objects"):
            return 200, [self.stored(each) for each in body["objects"]]
        if (method, route) == ("DELETE", "/v1/batch/objects"):
            where = body["match"]["where"]
            gone = [id for id, each in self.objects.items() if passes(each["properties"], where)]
            for id in gone:
                del self.objects[id]
            return 200, {"results": {"matches": len(gone), "successful": len(gone), "failed": 0, "limit": 10_000}}
        assert (method, route) == ("POST", "/v1/graphql")
        return 200, self.queried(body["query"])

    def stored(self, given: dict[str, Any]) -> dict[str, Any]:
        assert UUID_FORM.fullmatch(given["id"]) and given["class"] in self.classes
        own = {each["name"] for each in self.classes[given["class"]]["properties"]}
        assert set(given["properties"]) == own, "the schema would grow"
        sizes = {len(each["vector"]) for each in self.objects.values()} | {len(given["vector"])}
        if len(sizes) > 1:
            return {"result": {"errors": {"error": [{"message": f"new node has a vector with length {max(sizes)}"}]}}}
        self.objects[given["id"]] = given
        return {**given, "result": {"status": "SUCCESS"}}

    def queried(self, text: str) -> dict[str, Any]:
        from graphql import parse

        [operation] = parse(text).definitions
        [get] = operation.selection_set.selections
        [one] = get.selection_set.selections
        arguments = {each.name.value: plain(each.value) for each in one.arguments}
        found = [each for each in self.objects.values() if passes(each["properties"], arguments["where"])]
        scored = {each["id"]: 0.0 for each in found}
        if near := arguments.get("nearVector"):
            query = np.array(near["vector"], dtype=np.float32)
            scored = {each["id"]: -float(np.dot(np.array(each["vector"], dtype=np.float32), query)) for each in found}
            found.sort(key=lambda each: scored[each["id"]])
        elif arguments.get("sort"):
            [order] = arguments["sort"]
            found.sort(key=lambda each: each["properties"][order["path"][0]], reverse=order["order"] == "desc")
        rows = []
        for each in found[: arguments["limit"]]:
            row: dict[str, Any] = {}
            for wanted in one.selection_set.selections:
                if wanted.name.value == "_additional":
                    known = {"id": each["id"], "vector": each["vector"], "distance": scored[each["id"]]}
                    names = [name.name.value for name in wanted.selection_set.selections]
                    row["_additional"] = {name: known[name] for name in names}
                else:
                    row[wanted.name.value] = each["properties"][wanted.name.value]
            rows.append(row)
        return {"data": {get.name.value: {one.name.value: rows}}}

    def answer(self, status: int, body: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def weaviate_server(key: str = "") -> Iterator[tuple[str, type[Handler]]]:
    """The address of a server without classes, and its state."""
    state = {"objects": {}, "classes": {}, "asked": [], "answers": [], "key": key}
    handler = type("OwnHandler", (Handler,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def uuid_of(id: str) -> str:
    """The object's id of a record's."""
    return str(UUID(id))
