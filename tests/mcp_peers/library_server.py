"""An MCP server of 2025-11-25 in plain Python with tools on pages, resources and prompts: `python library_server.py [MODE]`.

`full`: all of it. `bare`: no prompts and one template of resources. `dynamic`: lists that are empty and may change. `plain`:
no capability at all.
"""

import json
import sys

MODE = sys.argv[1] if len(sys.argv) > 1 else "full"
CAPABILITIES = {
    "full": {"tools": {"listChanged": True}, "resources": {}, "prompts": {}},
    "bare": {"tools": {}, "resources": {}, "prompts": {}},
    "dynamic": {"tools": {}, "resources": {"listChanged": True}, "prompts": {"listChanged": True}},
    "plain": {},
}[MODE]
gone = set()


def send(**body):
    print(json.dumps({"jsonrpc": "2.0", **body}), flush=True)


def tool(name, description, schema=None, **more):
    return {"name": name, "description": description, "inputSchema": schema or {"type": "object"}, **more}


def tools(cursor):
    first = [
        tool("lend", "Lends a book.", {"type": "object", "properties": {"title": {"type": "string"}}}),
        tool("alpha", "First of all.", annotations={"readOnlyHint": True}),
        tool("broken", "", {"type": "object", "properties": {"a": {"$ref": "http://x"}}}),
    ]
    second = [tool("odd.name", "Odd."), tool("get_prompt", "Its own."), tool("hidden", "Not offered.")]
    return [each for each in (second if cursor else first) if each["name"] not in gone]


def resources(cursor):
    if MODE != "full":
        return []
    if cursor:
        return [{"uri": "lib:///b", "name": "b"}]
    return [{"uri": "lib:///a", "name": "a", "title": "The A", "description": "Of books."}]


def templates(cursor):
    if MODE == "dynamic":
        return []
    return [{"uriTemplate": "lib:///{id}", "name": "by id"}, {"uriTemplate": "x:{y}", "name": "n", "description": "D."}]


def prompts(cursor):
    if MODE != "full":
        return []
    if cursor:
        return [{"name": "plain", "title": "Plain words"}]
    given = [{"name": "book", "required": True}, {"name": "tone"}]
    return [{"name": "praise", "description": "Praises.", "arguments": given}]


def text(words):
    return {"type": "text", "text": words}


def called(id, name, arguments):
    if name == "lend":
        send(id=id, result={"content": [text(json.dumps(arguments))]})
    elif name == "alpha":
        gone.add("lend")
        for part in ("tools", "resources"):
            send(method=f"notifications/{part}/list_changed")
        send(id=id, result={"content": [], "isError": True})
    elif name == "get_prompt":
        pass  # never answered
    else:
        send(id=id, error={"code": -32602, "message": "no </untrusted> today"})


def answer(id, method, params):
    cursor = params.get("cursor")
    lists = {
        "tools/list": ("tools", tools),
        "resources/list": ("resources", resources),
        "resources/templates/list": ("resourceTemplates", templates),
        "prompts/list": ("prompts", prompts),
    }
    if method == "initialize":
        info = {"name": "library", "version": "2"}
        send(id=id, result={"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": info})
    elif method in lists:
        part, entries = lists[method]
        paged = part != "resourceTemplates" and MODE == "full" and not cursor
        send(id=id, result={part: entries(cursor), **({"nextCursor": "two"} if paged else {})})
    elif method == "tools/call":
        called(id, params["name"], params.get("arguments") or {})
    elif method == "resources/read":
        send(id=id, result={"contents": [{"uri": params["uri"], "text": f"the text of {params['uri']}"}]})
    elif method == "prompts/get":
        words = f"{params['name']} {json.dumps(params.get('arguments'))}"
        send(id=id, result={"messages": [{"role": "user", "content": text(words)}]})
    elif id is not None:
        send(id=id, error={"code": -32601, "message": "Method not found"})


for line in sys.stdin:
    request = json.loads(line)
    if "method" in request:
        answer(request.get("id"), request["method"], request.get("params") or {})
