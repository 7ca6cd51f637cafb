"""MCP against programs of others: the conformance suite, the Inspector, and servers from npm and PyPI."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from mcp_peers.node_peers import MISSING, find_node, install
from thorough import part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PEERS = Path(__file__).parent / "mcp_peers"
CLIENT_SCENARIOS = part([
    "tools_call", "request-metadata", "sep-2322-client-request-state", "http-custom-headers", "http-invalid-tool-headers",
    "auth/metadata-default", "auth/scope-step-up", "auth/pre-registration", "auth/iss-wrong-issuer",
    "json-schema-ref-no-deref",
], 2)  # fmt: skip
"""The scenarios that run here, of the 32 in docs/mcp.md: each starts a Python."""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A function that runs a program of the installed packages."""
    found = find_node()
    if found is None:
        pytest.skip(MISSING)
    program, npm = found
    folder = tmp_path_factory.mktemp("npm")
    install(folder, npm, program)

    def command(name):
        return [program, str((folder / "node_modules" / ".bin" / name).resolve())]

    return command


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.fixture
def fixture_server(home):
    words = [sys.executable, str(PEERS / "conformance_server.py"), "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        url = ""
        while not url.startswith("http"):
            url = process.stdout.readline().strip()
        try:
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.wait(timeout=60)


@pytest.mark.parametrize("revision, least", [("2025-11-25", 80), ("2026-07-28", 190)])
def test_the_server_passes_every_scenario_of_the_conformance_suite(node, fixture_server, revision, least):
    done = subprocess.run(
        [*node("conformance"), "server", "--url", fixture_server, "--requirements", revision, "--timeout", "120000"],
        capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    passed, failed = map(int, re.findall(r"Total: (\d+) passed, (\d+) failed", done.stdout)[-1])
    assert failed == 0, done.stdout[-3000:]
    assert passed >= least


@pytest.mark.parametrize("scenario", CLIENT_SCENARIOS)
def test_the_client_passes_scenarios_of_the_conformance_suite(node, home, scenario):
    client = f"{sys.executable} {PEERS / 'conformance_client.py'}"
    words = ["client", "--command", client, "--scenario", scenario, "--spec-version", "2026-07-28"]
    done = subprocess.run(
        [*node("conformance"), *words, "--timeout", "120000"], capture_output=True, text=True, timeout=300
    )
    said = done.stdout + done.stderr  # the suite writes its verdict to standard error
    assert done.returncode == 0 and "OVERALL: PASSED" in said, said[-4000:]


def test_the_inspector_lists_and_calls_the_tools_of_firsthand_mcp(node, home):
    ours = [sys.executable, "-m", "firsthand", "mcp", "--tools", "calculator"]
    environment = [
        "-e",
        f"PYTHONPATH={os.environ['PYTHONPATH']}",
        "-e",
        f"FIRSTHAND_HOME={os.environ['FIRSTHAND_HOME']}",
    ]

    def inspect(*flags):
        words = [*node("mcp-inspector"), "--cli", *environment, *ours, *flags, "--connect-timeout", "120000"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    assert [each["name"] for each in inspect("--method", "tools/list")["tools"]] == ["calculator"]
    called = inspect("--method", "tools/call", "--tool-name", "calculator", "--tool-arg", "expression=6*7")
    assert called["content"] == [{"type": "text", "text": "42"}]


async def use(declaration, *calls):
    """What an agent's source offers, and the results of these calls of it."""
    source = RemoteTools(declaration)
    try:
        await source.open()
        tools = {tool.name: tool for tool in source.tools}
        return list(tools), [await tools[f"{declaration.name}__{name}"](arguments) for name, arguments in calls]
    finally:
        await source.close()


def test_servers_of_others_from_npm_are_driven(node, home, tmp_path):
    def started(name, *words):
        return ServerDeclaration(
            name, command=node(f"mcp-server-{name}")[0], args=(*node(f"mcp-server-{name}")[1:], *words), opening_s=120
        )

    names, (echoed, total, listed) = asyncio.run(
        use(
            started("everything"), ("echo", {"message": "hello"}), ("get-sum", {"a": 2, "b": 3}), ("list_resources", {})
        )
    )
    assert "everything__trigger-sampling-request" in names
    assert "hello" in echoed and "5" in total and "demo://" in listed
    (tmp_path / "note.txt").write_text("a note")
    read = ("read_text_file", {"path": str(tmp_path / "note.txt")})
    assert asyncio.run(use(started("filesystem", str(tmp_path)), read))[1] == ["a note"]
    made = ("create_entities", {"entities": [{"name": "Ada", "entityType": "person", "observations": ["counts"]}]})
    _, (_, graph) = asyncio.run(use(started("memory"), made, ("read_graph", {})))
    assert "Ada" in graph


def test_servers_of_others_from_pypi_are_driven(home, tmp_path):
    packages = tmp_path / "packages"
    install_them = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(packages)]
    subprocess.run([*install_them, "mcp-server-time", "mcp-server-git", "mcp-server-fetch"], check=True, timeout=600)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "repository")], check=True)

    def started(name):
        words = ("-m", f"mcp_server_{name}")
        return ServerDeclaration(
            name, command=sys.executable, args=words, env={"PYTHONPATH": str(packages)}, opening_s=120
        )

    now = ("get_current_time", {"timezone": "UTC"})
    assert '"timezone": "UTC"' in asyncio.run(use(started("time"), now))[1][0]
    status = ("git_status", {"repo_path": str(tmp_path / "repository")})
    assert "No commits yet" in asyncio.run(use(started("git"), status))[1][0]
    assert "fetch__fetch" in asyncio.run(use(started("fetch")))[0]
