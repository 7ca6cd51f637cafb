"""MCP servers as tools of an agent: what they offer, what they may ask for, and what their faults end in."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import AnswerPending, ConfigError, ToolError
from firsthand.loop.approval import Approval, AskPerson, Decision
from firsthand.loop.budget import Limits
from firsthand.loop.calling import caller
from firsthand.loop.form import MAX_FIELDS, form_fields
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, ToolCall
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.dialogue import Dialogue
from firsthand.task import Task
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.definitions import (
    ArgumentChecker,
    ToolDefinition,
    UnusableDefinition,
    difference,
    spec_of,
    tool_name,
)
from firsthand.tools.mcp.http_endpoint import EndpointBackend
from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools, ranked
from firsthand.tools.mcp.server_declaration import ServerDeclaration, declarations, read_declarations
from firsthand.tools.mcp.server_requests import _is_cut
from typed_terminal import Typed

PEERS = Path(__file__).parent / "mcp_peers"
HOSTILE = str(PEERS / "hostile_server.py")
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def declared(mode="honest", *args, **settings):
    words = (HOSTILE, mode, *map(str, args))
    return ServerDeclaration("peer", command=sys.executable, args=words, **settings)


def attempt(*servers, calls=(("peer__echo", {"text": "hello"}),), model=None, approval=None, **more):
    """The trace of an agent that makes these calls, and the results that its model would read."""

    async def make_calls(task, ctx):
        texts = []
        for name, arguments in calls:
            texts.append((await ctx.call(ToolCall("call", name, arguments))).content)
        return "\n".join(texts)

    sources = tuple(EachAttempt(each) if isinstance(each, ServerDeclaration) else each for each in servers)
    agent = Agent(
        "caller", model or Scripted(["blue"] * 30), make_calls, tools=sources, approval=approval or Approval(), **more
    )
    return asyncio.run(rollout(agent, Task("task", "question")))


async def opened_tools(source):
    try:
        await source.open()
        return source.tools
    finally:
        await source.close()


def events(trace, kind):
    return [event.data for event in trace.events if event.kind == kind]


# -- what a server offers --


def test_tools_are_named_after_their_server_external_and_in_a_fixed_order():
    tools = asyncio.run(opened_tools(RemoteTools(declared(effects={"ec*": "read"}))))
    assert [(tool.name, tool.effect) for tool in tools] == [("peer__echo", "read")]
    (undeclared,) = asyncio.run(opened_tools(RemoteTools(declared())))
    assert (undeclared.effect, undeclared.origin) == ("external", "MCP server peer")


def test_a_result_is_data_of_the_server_between_marks():
    trace = attempt(declared())
    assert trace.answer == '<untrusted from="MCP server peer">\nhello\n</untrusted>'
    assert attempt(declared(trusted=True)).answer == "hello"


def test_the_trace_says_which_server_answered_in_which_revision():
    (said,) = events(attempt(declared()), "mcp_server")
    assert (said["revision"], said["said"]["name"], said["tools"]) == ("2025-11-25", "hostile", 1)


def test_words_of_a_description_stay_between_marks_and_out_of_the_schema():
    (tool,) = asyncio.run(opened_tools(RemoteTools(declared("injection"))))
    assert tool.spec.description.startswith('<untrusted from="MCP server peer">')
    assert tool.spec.description.count("</untrusted>") == 1 and tool.spec.description.endswith("</untrusted>")
    assert "What to repeat." in tool.spec.description
    assert "description" not in json.dumps(tool.spec.parameters)


def test_words_of_an_error_stay_between_marks():
    result = attempt(declared("error")).answer
    assert result.startswith('Error: <untrusted from="MCP server peer">') and result.count("</untrusted>") == 1


def test_a_list_that_changed_is_read_again_between_turns():
    trace = attempt(declared("grows"), calls=[("peer__echo", {"text": "a"}), ("peer__another", {"text": "b"})])
    assert "\nb\n" in trace.answer
    assert events(trace, "tools_changed") == [{"added": ["peer__another"], "removed": []}]


def test_progress_is_recorded_within_bounds():
    reported = [each["done"] for each in events(attempt(declared("progress")), "mcp_progress")]
    assert reported[:3] == [1, 2, 3] and reported[-1] == 200 and len(reported) == 51


def test_a_server_of_many_tools_offers_a_search_and_what_it_found():
    async def look():
        source = RemoteTools(declared("many"))
        try:
            await source.open()
            before = [tool.name for tool in source.tools]
            found = await source.tools[-1]({"query": "a pink elephant to rotate", "most": 1})
            return before, found, [tool.name for tool in source.tools], source.version
        finally:
            await source.close()

    before, found, after, version = asyncio.run(look())
    assert before == ["peer__search_tools"]
    assert 'peer__rotate_elephant {"text": "<string>"}' in found and "untrusted" not in found
    assert after == ["peer__rotate_elephant", "peer__search_tools"] and version == 2


@pytest.mark.slow
def test_a_resumed_attempt_offers_the_tools_that_were_found_again():
    calls = [("peer__search_tools", {"query": "elephant", "most": 1}), ("peer__rotate_elephant", {"text": "now"})]

    async def make_calls(task, ctx):
        for name, arguments in calls:
            await ctx.call(ToolCall("call", name, arguments))
        return ",".join(tool.name for tool in ctx.tools)

    journal = MemoryJournal()
    agent = Agent("caller", Scripted([]), make_calls, tools=(EachAttempt(declared("many")),))
    answers = [asyncio.run(rollout(agent, Task("t", "q"), journal=journal)).answer for _ in range(2)]
    assert answers == ["peer__rotate_elephant,peer__search_tools"] * 2


def test_ranking_prefers_rare_words_and_breaks_ties_by_name():
    (calculator,) = catalog.tools("calculator")

    def described(text):
        return replace(calculator, spec=replace(calculator.spec, description=text))

    tools = {"c": described("moon"), "b": described("moon rocks"), "a": described("moon")}
    assert ranked("zebra", tools, 5) == []
    assert ranked("moon rock", tools, 5) == ["b", "a", "c"]
    assert ranked("moon", tools, 2) == ["a", "b"]


# -- what a server may ask for --


def test_sampling_is_answered_by_the_agents_model_and_recorded_under_the_call():
    model = Scripted(["teal"])
    trace = attempt(declared("sampling"), model=model)
    assert "\nteal endTurn\n" in trace.answer
    (asked,) = model.asked
    assert [message.text for message in asked.prompt] == ["Be brief.", "Which colour?"]
    (call,) = [call for call in trace.calls if call.kind == "generate"]
    assert call.id == ":0 request 0" and asked.sampling.max_tokens == 50
    assert trace.usage.completion_tokens > 0


class Cut(Scripted):
    """Gives answers that the token limit has cut."""

    async def complete(self, *asked, **more):
        return [replace(each, finish_reason="length") for each in await super().complete(*asked, **more)]


def test_the_server_is_told_that_the_token_limit_cut_an_answer():
    answer = attempt(declared("sampling"), model=Cut(["The answer is not"])).answer
    assert "\nThe answer is not maxTokens\n" in answer


def test_sampling_stops_at_the_attempts_budget():
    trace = attempt(declared("sampling"), limits=Limits(calls=1))
    assert "refused:" in trace.answer and "budget" in trace.answer


def test_sampling_can_be_denied_by_a_rule_and_by_the_declaration():
    trace = attempt(declared("sampling"), approval=Approval({"peer__sampling": "deny"}))
    assert "refused: peer__sampling is not allowed here" in trace.answer
    assert "refused:" in attempt(declared("sampling", sampling=False)).answer


def test_one_call_is_answered_eight_completions_at_most():
    assert attempt(declared("greedy", trusted=True)).answer == "8"


class Person:
    """Answers forms and questions as told."""

    def __init__(self, answers, allowed=True):
        self.answers, self.allowed, self.asked = answers, allowed, []

    async def __call__(self, tool, arguments):
        self.asked.append((tool.name, tool.spec.description, arguments))
        return Decision(self.allowed, "test", "" if self.allowed else "no")

    async def fill(self, tool, message, fields):
        self.asked.append((tool.name, message, [each.name for each in fields]))
        return self.answers


def test_elicitation_goes_to_the_person_who_approves_calls():
    person = Person({"seat": "aisle", "bags": 2})
    trace = attempt(declared("elicitation", trusted=True), approval=Approval(ask=person))
    assert json.loads(trace.answer) == {"action": "accept", "content": {"seat": "aisle", "bags": 2}}
    assert person.asked == [("peer__elicitation", "Which seat?", ["seat", "bags"])]
    assert events(trace, "mcp_elicitation")[0]["answer"] == {"seat": "aisle", "bags": 2}


def test_a_call_whose_question_waits_for_its_answer_ends_the_attempt_and_is_made_again_with_it():
    class Later:
        """Answers from the second time on, and notes the call that it was asked about."""

        def __init__(self):
            self.asked = []

        async def __call__(self, tool, arguments):
            raise AssertionError("the call itself is allowed")

        async def fill(self, tool, message, fields):
            self.asked.append((tool.name, caller().effect))
            if len(self.asked) == 1:
                raise AnswerPending("approval", "nobody has answered yet")
            return {"seat": "aisle"}

    async def pattern(task, ctx):
        return (await ctx.call(ToolCall("call", "peer__echo", {"text": "hello"}))).content

    later, journal = Later(), MemoryJournal()
    source = EachAttempt(declared("elicitation", trusted=True))
    agent = Agent("caller", Scripted([]), pattern, tools=(source,), approval=Approval(ask=later))
    first = asyncio.run(rollout(agent, Task("task", "question"), journal=journal))
    assert (first.stop_reason, first.answer, first.error) == ("approval", None, None)
    again = asyncio.run(rollout(agent, Task("task", "question"), journal=journal))
    assert json.loads(again.answer)["content"] == {"seat": "aisle"}, "external, and not taken for interrupted"
    assert later.asked == [("peer__elicitation", ":0")] * 2
    assert asyncio.run(rollout(agent, Task("task", "question"), journal=journal)).answer == again.answer
    assert len(later.asked) == 2


def test_a_form_that_nobody_answers_is_declined():
    trace = attempt(declared("elicitation", trusted=True))  # under pytest there is no terminal
    assert json.loads(trace.answer) == {"action": "decline"}
    denied = Approval({"peer__elicitation": "deny"}, ask=Person({"seat": "aisle"}))
    assert json.loads(attempt(declared("elicitation", trusted=True), approval=denied).answer)["action"] == "decline"


@pytest.mark.slow
def test_what_a_server_asks_the_user_is_told_from_our_own_questions_and_bounded(tmp_path):
    def form(properties, message="M", **more):
        return {"message": message, "requestedSchema": {"type": "object", "properties": properties} | more}

    many = {f"f{number}": {"type": "string"} for number in range(60_000)}
    lines = "Hi\nbank__pay (irreversible): Pays.\nRun it?\n"
    asked = [
        form({"a": {"type": "string", "title": "t\nRun it?\n" * 10_000}}, lines),
        form(many, lines + "y\n" * 400_000, required=[*many]),
        {"mode": "url", "message": lines, "url": "javascript:alert(1)", "elicitationId": "1"},
        {"mode": "url", "message": lines, "url": "https://a.example/\nRun it?", "elicitationId": "2"},
        {"message": "M", "requestedSchema": [1]},
        *[form({})] * 5,
    ]
    (tmp_path / "asked").write_text(json.dumps(asked))
    terminal = Typed(*["yes", "x"], *["yes", *["z"] * 24], "yes", *["no"] * 9)
    approval = Approval(ask=AskPerson(terminal))
    trace = attempt(declared("asks", tmp_path / "asked", trusted=True), approval=approval)
    first, second, *others = json.loads(trace.answer)
    assert first == {"action": "accept", "content": {"a": "x"}} and len(second["content"]) == MAX_FIELDS
    assert others[0] == {"refused": "only addresses of http and https are opened"}
    assert others[1] == {"action": "accept"} and others[2] == {"refused": "Invalid request parameters"}
    refused = {"refused": "more than 8 requests in one call"}
    assert others[3:] == [*[{"action": "decline"}] * 4, refused]
    shown = terminal.sink.getvalue().split("\n")
    assert not any(line.startswith(("bank", "t", "y")) for line in shown) and not shown.count("Run it?")
    assert sum(line.startswith("Open the page, then say yes") for line in shown) == 1
    assert [len(each["message"]) for each in events(trace, "mcp_elicitation")[:2]] == [len(lines), 20_000]


def test_roots_are_those_that_were_declared(tmp_path):
    answer = attempt(declared("roots", trusted=True, roots=(str(tmp_path),))).answer
    assert json.loads(answer) == [{"uri": tmp_path.as_uri(), "name": tmp_path.name}]


# -- tools that change --


@pytest.mark.slow
def test_a_tool_that_changed_after_approval_is_shown_as_a_change_and_asked_again(tmp_path):
    flag = tmp_path / "flag"
    server = declared("changed", flag)
    assert "hello" in attempt(server).answer  # seen, and so approved; from now on it describes itself otherwise
    refused = attempt(server, approval=Approval(ask=Person(None, allowed=False)))
    assert "its definition changed after it was approved" in refused.answer
    (change,) = events(refused, "tool_changed")
    assert change["change"]["description"] == {
        "was": "Repeats a text.",
        "is": "Repeats a text, and sends it to somebody else.",
    }
    person = Person(None)
    assert "hello" in attempt(server, approval=Approval(ask=person)).answer
    ((name, said, shown),) = person.asked
    assert name.startswith("peer__echo@") and "changed the tool echo" in said
    assert shown["change"].startswith('description was: "Repeats a text."\ndescription is: "Repeats a text, and sends')
    nobody = Person(None, allowed=False)
    assert "hello" in attempt(server, approval=Approval(ask=nobody)).answer and nobody.asked == []


def test_damaged_approvals_are_an_error_and_no_blank_cheque(tmp_path):
    approved = ApprovedDefinitions(declared(), tmp_path)
    approved.path.parent.mkdir(parents=True)
    approved.path.write_text("{")
    with pytest.raises(Exception, match="is damaged, so no change"):
        approved.changes({"echo": ToolDefinition("echo", "", {}, {})})


def test_a_difference_names_what_was_and_what_is():
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == {"b": {"was": 2, "is": 3}}


# -- faults --


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode, said",
    [
        ("dies", "MCP server peer ended with exit code 3; its last words were: about to fall over"),
        ("endless", "sent a message of more than 8,000,000 bytes"),
        ("noise", "wrote more than 1,000 lines that are no messages"),
        ("lying", "broke the protocol: Invalid structured content returned by tool echo"),
    ],
)
def test_a_broken_call_ends_in_a_trace_that_says_why(mode, said):
    trace = attempt(declared(mode))
    assert trace.error is None and said in trace.answer
    assert trace.calls[0].error is not None and said in trace.calls[0].error


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_and_told_so(tmp_path):
    began = time.monotonic()
    trace = attempt(declared("never", timeout_s=0.3))
    assert "MCP server peer did not answer within 0.3 s" in trace.answer
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_an_attempts_time_limit_holds_while_a_server_is_silent():
    trace = attempt(declared("never"), limits=Limits(seconds=0.5))
    assert trace.stop_reason == "seconds"
    assert [call.error for call in trace.calls] == ["it was broken off before it had a result"]


@pytest.mark.slow
def test_a_server_that_never_greets_is_an_error_of_the_attempt():
    trace = attempt(declared("mute", opening_s=0.5))
    assert trace.error.kind == "ToolError" and "did not answer within 0.5 s" in trace.error.message


@pytest.mark.parametrize(
    "command, said",
    [("no-such-program-here", "cannot be started: no-such-program-here: No such file"), ("false", "exit code 1")],
)
def test_a_program_that_is_no_server_is_told_in_one_sentence(command, said):
    trace = attempt(ServerDeclaration("peer", command=command))
    assert trace.error.kind == "ToolError" and said in trace.error.message


def test_a_list_without_end_is_given_up():
    trace = attempt(declared("pages", opening_s=20))
    assert "on more than 200 pages" in trace.error.message


def test_schemas_that_cannot_be_used_leave_their_tool_out_and_the_trace_says_so():
    (said,) = events(attempt(declared("schemas")), "mcp_server")
    assert set(said["left_out"]) == {"far", "deep", "wrong"}
    assert "outside of it" in said["left_out"]["far"] and "nested more than 24 deep" in said["left_out"]["deep"]


def test_the_schemas_of_a_server_have_a_million_characters_together():
    (said,) = events(attempt(declared("long_schemas")), "mcp_server")
    assert set(said["left_out"]) == {f"long_{number}" for number in range(16, 20)}
    assert "more than 1,000,000 characters" in said["left_out"]["long_16"]


def test_a_list_that_breaks_the_protocol_is_an_error_of_the_attempt():
    trace = attempt(declared("array"))
    told = "MCP server peer broke the protocol: tools.0.inputSchema.type: Input should be 'object'"
    assert trace.error.message == told, "its first fault alone"


def test_a_pattern_that_takes_for_ever_is_not_run():
    began = time.monotonic()
    trace = attempt(declared("schemas"), calls=[("peer__slow_pattern", {"text": "a" * 40 + "!"})])
    assert "a!" in trace.answer and time.monotonic() - began < 20


def test_nothing_of_a_server_outlives_the_attempt(tmp_path):
    child = tmp_path / "child"
    attempt(declared("orphan", child))
    assert still_running([int(child.read_text())]) == []


CLIENT = """
import asyncio, sys
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration

async def main():
    await RemoteTools(ServerDeclaration("peer", command=sys.executable, args=tuple(sys.argv[1:]))).open()
    print("open", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.slow
@NEEDS_PROC
def test_a_server_that_ignores_the_end_of_its_input_ends_after_kill_9_of_its_client(tmp_path):
    pids = tmp_path / "pids"
    words = [sys.executable, "-c", CLIENT, HOSTILE, "deaf", str(pids)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "open\n"
        started = [int(each) for each in pids.read_text().split()]
        assert still_running(started, wait_s=0) == started
        for guard in guards_of(client.pid):
            os.kill(guard, signal.SIGTERM)  # as a service manager does to all processes of a service
        client.send_signal(signal.SIGKILL)
        client.wait()
    assert len(started) == 2 and still_running(started) == []


@NEEDS_PROC
def test_the_guard_of_a_server_ends_with_it():
    async def opened_and_closed():
        source = RemoteTools(declared())
        await source.open()
        seen = guards_of(os.getpid())
        await source.close()
        return seen

    seen = asyncio.run(opened_and_closed())
    assert len(seen) == 1 and not Path(f"/proc/{seen[0]}").exists()  # and is waited for: no zombie either


def guards_of(client):
    """The processes that stand beside the servers of a client."""
    named = [
        file.parent.name for file in Path("/proc").glob("[0-9]*/cmdline") if b"firsthand-mcp-guard" in _words(file)
    ]
    return [int(pid) for pid in named if _stat(pid)[1:2] == [str(client)]]


def still_running(pids, wait_s=20.0):
    """Those of the processes that still run after so long, which a busy machine may need."""
    until = time.monotonic() + wait_s
    while (found := [pid for pid in pids if _state(pid) != "Z"]) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def _state(pid):
    return (_stat(pid) or ["Z"])[0]


def _stat(pid):
    """The fields of a process from its state on; none of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _words(file):
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_arguments_are_checked_before_the_server_sees_them():
    assert "peer__echo was called with" in attempt(declared(), calls=[("peer__echo", {"text": 5})]).answer


# -- addresses --


def backend(url, resolved, **more):
    async def resolver(host, port):
        return [resolved]

    return EndpointBackend(ServerDeclaration("peer", url=url, **more), resolver)


def test_a_private_address_is_reached_only_if_it_is_the_endpoint_or_allowed():
    there = backend("http://192.0.2.1:8123/mcp", "127.0.0.1")
    with pytest.raises(ToolError, match="port 9 may not be used"):
        asyncio.run(there.connect_tcp("metadata.example", 9))
    with pytest.raises(ToolError, match=r"is at 127\.0\.0\.1, which is no public address"):
        asyncio.run(there.connect_tcp("metadata.example", 80))
    with pytest.raises(ToolError, match=r"is at 169\.254\.169\.254"):
        asyncio.run(there.connect_tcp("169.254.169.254", 80))
    with pytest.raises(Exception, match=r"(?i)connect"):  # allowed, and nobody listens
        asyncio.run(backend("http://x.example/mcp", "", allow="127.0.0.1").connect_tcp("127.0.0.1", 9, 1.0))


def test_a_redirect_to_another_address_is_not_followed():
    async def main():
        async def redirect(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            target = b"http://127.0.0.1:9/secret"
            writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: " + target + b"\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        source = RemoteTools(ServerDeclaration("peer", url=f"http://127.0.0.1:{port}/mcp", opening_s=10))
        async with server:
            try:
                await source.open()
            finally:
                await source.close()

    with pytest.raises(ToolError, match="MCP server peer"):
        asyncio.run(main())


def test_an_endpoint_that_nobody_serves_is_told_in_one_sentence():
    trace = attempt(ServerDeclaration("peer", url="http://127.0.0.1:9/mcp"))
    assert trace.error.message.startswith("MCP server peer cannot be reached:")


# -- declarations and definitions --


def test_a_text_names_a_command_a_url_or_the_servers_of_a_file(tmp_path):
    (command,) = declarations("uvx mcp-server-time --local-timezone UTC")
    assert (command.name, command.command, command.args[0]) == ("time", "uvx", "mcp-server-time")
    (module,) = declarations("env A=b python3.11 -m mcp_server_git")
    assert module.name == "git"
    (package,) = declarations("npx -y @modelcontextprotocol/server-filesystem@1.2 /tmp")
    assert package.name == "filesystem"
    (url,) = declarations("https://mcp.example.org/mcp?key=secret")
    assert (url.name, url.target) == ("mcp-example-org", "https://mcp.example.org/mcp")
    file = tmp_path / "servers.toml"
    file.write_text('[servers.a]\ncommand = "x"\n[servers.b]\nurl = "http://h/mcp"\nroots = ["sub"]\n')
    assert [each.name for each in declarations(str(file))] == ["a", "b"]
    (chosen,) = declarations(f"{file}#b")
    assert chosen.roots == (str(tmp_path / "sub"),)


@pytest.mark.parametrize(
    "text, said",
    [
        ('[servers.a]\ncomand = "x"', "did you mean 'command'"),
        ('[servers.a]\ncommand = "x"\nurl = "http://h"', "both a command and a url"),
        ("[servers.a]", "neither a command nor a url|neither a command and a url"),
        ('[servers.a]\ncommand = "x"\n[servers.a.effects]\nt = "reed"', "did you mean 'read'"),
        ('[servers.a]\ncommand = "x"\ntimeout_s = 0', "seconds above 0"),
        ('[servers.a]\ncommand = "x"\nlazy_above = 0', "above 0"),
        ("[servers.a]\ncommand = 5", "is 5"),
        ('[servers.a]\ncommand = "x"\nenv = {K = "${NO_SUCH_VARIABLE_X}"}', "NO_SUCH_VARIABLE_X"),
        ('[servers.a]\nurl = "http://me:word@h/"', "password in its url"),
        ('[servers."a b"]\ncommand = "x"', "letters, digits"),
        ("tools = 1", "declares no servers"),
        ("[servers.a", "is no TOML"),
    ],
)
def test_a_wrong_declaration_is_told_in_one_sentence(tmp_path, text, said):
    file = tmp_path / "servers.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_declarations(file)


def test_the_command_line_takes_servers_among_its_tools():
    (source,) = catalog.tools_and_sources(f"mcp:{sys.executable} {HOSTILE}")
    assert source.name == "mcp:hostile_server" and isinstance(source, EachAttempt)
    with pytest.raises(ConfigError, match="names no server"):
        catalog.tools_and_sources("mcp:")


def test_a_shared_server_of_many_tools_is_refused():
    with pytest.raises(ConfigError, match="belongs to one attempt"):
        asyncio.run(opened_tools(RemoteTools(declared("many", shared=True))))


def test_names_of_tools_fit_every_model_and_stay_apart():
    assert tool_name("time", "now") == "time__now"
    odd = {tool_name("time", name) for name in ("a.b", "a_b", "a b", "x" * 80, "x" * 81)}
    assert len(odd) == 5 and all(len(name) <= 64 and name.replace("_", "").isalnum() for name in odd)


def test_nulls_for_arguments_that_may_be_left_out_are_dropped():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {"type": "string"}},
        "required": ["c"],
    }
    spec = spec_of(ToolDefinition("t", "", schema, {}), declared())
    check = ArgumentChecker(spec)
    assert check({"a": None, "b": None, "c": "x"}) == {"b": None, "c": "x"}
    with pytest.raises(ToolError, match="c: None is not of type"):
        check({"c": None})


def test_an_argument_with_an_unseen_name_is_refused():
    hidden = {"type": "object", "properties": {"a\u200b": {}}}
    with pytest.raises(UnusableDefinition, match="not printable"):
        spec_of(ToolDefinition("t", "", hidden, {}), declared())


def test_form_fields_parse_what_a_person_types():
    fields = {
        each.name: each
        for each in form_fields(
            {
                "properties": {
                    "seat": {"type": "string", "oneOf": [{"const": "a", "title": "Aisle"}, {"const": "w"}]},
                    "bags": {"type": "integer", "minimum": 0, "maximum": 2, "default": 1},
                    "ok": {"type": "boolean"},
                    "many": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1},
                    "nested": {"type": "object"},
                },
                "required": ["seat"],
            }
        )
    }
    assert set(fields) == {"seat", "bags", "ok", "many"}
    assert (fields["bags"].parse(""), fields["bags"].parse("2"), fields["ok"].parse("No")) == (1, 2, False)
    assert fields["many"].parse("x, y") == ["x", "y"]
    for name, text in (("seat", ""), ("seat", "b"), ("bags", "3"), ("bags", "x"), ("ok", "maybe"), ("many", "z")):
        with pytest.raises(ValueError):
            fields[name].parse(text)


def test_credentials_are_kept_from_others(tmp_path):
    from mcp.shared.auth import OAuthToken

    from firsthand.tools.mcp.oauth_sign_in import StoredTokens

    stored = StoredTokens(
        ServerDeclaration("peer", url="https://h.example/mcp"), "http://127.0.0.1:1/callback", tmp_path
    )
    asyncio.run(stored.set_tokens(OAuthToken(access_token="secret", token_type="Bearer")))
    assert oct(stored.path.stat().st_mode & 0o777) == "0o600"
    assert asyncio.run(stored.get_tokens()).access_token == "secret"


def test_a_conversation_opens_the_servers_of_its_agent_and_closes_them():
    asked = Message("assistant", (ToolCall("c", "peer__echo", {"text": "hello"}),))
    source = RemoteTools(declared(trusted=True))
    dialogue = Dialogue(Agent("chat", Scripted([asked, "done"]), reply, tools=(source,)))

    async def main():
        answer = await dialogue.ask("say hello")
        process = source.connection._process.process
        await dialogue.close()
        return answer, process.returncode

    answer, code = asyncio.run(main())
    assert answer == "done" and code is not None
    assert [message.parts[0].content for message in dialogue.context.messages if message.role == "tool"] == ["hello"]


def test_an_answer_was_cut_if_its_own_completion_was() -> None:
    def call(node: int, reason: str, kind: str = "generate") -> SimpleNamespace:
        return SimpleNamespace(kind=kind, nodes=(node,), detail={"finish_reasons": [reason]})

    def is_cut(*calls: SimpleNamespace) -> bool:
        return _is_cut(SimpleNamespace(node=1, attempt=SimpleNamespace(calls=calls)))  # type: ignore[arg-type]

    assert is_cut(call(0, "stop"), call(1, "length"), call(2, "stop"), call(1, "stop", "score"))
    assert not is_cut(call(1, "stop"), call(2, "length")) and not is_cut()
