"""Parts of served agents without a server: approvals, chats as sessions, agents in files, and how requests are parsed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands.safety import Config as SafetyConfig
from firsthand.commands.safety import main as safety
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began, Piece
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.agents.agent_file import AgentFile, open_agent, read_agent_file
from firsthand.serve.agents.parked_approval import ParkedApproval, read_decision
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.session_model import _call, _hash, _lines, _said, _tail, _transcript, _usage
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai import request_parsing as parsing
from firsthand.serve.openai.request_schema import ChatRequest
from firsthand.serve.openai.sampled_turns import SampledTurns
from firsthand.serve.openai.stored_responses import ENTRY_BYTES, ResponseStore
from firsthand.tool import Tool, tool_from_function
from firsthand.trace import Call, Trace

# -- approvals --


def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def test_a_decision_is_read_from_a_word_or_an_object() -> None:
    assert [read_decision(x) for x in (" Yes! ", "OK.", "approve", "no", "DENIED", "maybe", "", "yes no")] == [
        True, True, True, False, False, None, None, None,
    ]  # fmt: skip
    for text, found in {
        "yes": (True, None), "No.": (False, None), "true": (True, None), "false": (False, None), "3": (None, None),
        '"yes"': (True, None), '{"allowed": true, "content": {"a": 1}}': (True, {"a": 1}),
        '{"allowed": "no", "content": [1]}': (False, None), '{"content": {"a": 1}}': (None, {"a": 1}), "[": (None, None),
    }.items():  # fmt: skip
        assert _said(text) == found, text


def test_a_question_is_about_its_call_or_has_a_number_within_it() -> None:
    async def main() -> None:
        subjects, tool = QuestionSubjects(), tool_from_function(pay, effect="irreversible")

        def look() -> str:
            """Look."""
            return ""

        other = tool_from_function(look, effect="read")
        subjects.hear(Began(":1", "generate", 0, {"name": "pay"}))
        assert subjects.of(tool) == " pay 1", "a generation is no call"
        subjects.hear(Began(":2", "tool", 0, {"name": "pay"}))
        assert [subjects.of(tool), subjects.of(other), subjects.of(other), subjects.of(tool)] == [
            ":2", ":2 look 1", ":2 look 2", ":2",
        ]  # fmt: skip
        subjects.hear(Began(":3", "tool", 0, {"name": "pay"}))
        assert [subjects.of(other), subjects.of(tool)] == [":3 look 1", ":3"]
        of_its_server = replace(tool, request="sampling")
        assert subjects.of(of_its_server) == ":3 pay 1", "leave to call a tool is none for what its server asks"

    asyncio.run(main())


def test_an_answer_in_the_store_is_the_decision_with_its_reason(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "pay")
    tool: Tool = tool_from_function(pay, effect="irreversible")

    async def decided(number: int, *answer: Any) -> Any:
        heard = HeardSteps()
        parked = ParkedApproval(store, turn, heard)
        parked.hear(Began(f":{number}", "tool", 0, {"name": "pay"}))
        heard.hear(Began(f":{number}", "tool", 0, {"name": "pay"}))
        asking = asyncio.create_task(parked(tool, {"amount": number}))
        for _ in range(200):
            if parked.waiting:
                break
            await asyncio.sleep(0.001)
        ((subject, asked),) = parked.waiting.items()
        assert (subject, asked.tool, asked.effect, asked.arguments) == (
            f":{number}",
            "pay",
            "irreversible",
            {"amount": number},
        )
        allowed, by, reason = answer
        store.answer(asked.id, allowed, by=by, reason=reason)
        decision = await asking
        assert parked.waiting == {}
        again = await parked(tool, {"amount": number})
        assert again == decision
        return decision.allowed, decision.by, decision.reason

    assert asyncio.run(decided(1, True, "ann", "")) == (True, "ann", "")
    assert asyncio.run(decided(2, False, "bob", "")) == (False, "bob", "bob did not approve this call of pay")
    assert asyncio.run(decided(3, False, "bob", "too much")) == (False, "bob", "too much")
    store.close()


# -- chats as sessions --


def test_what_a_client_sends_back_is_known_without_thoughts_approvals_and_blanks() -> None:
    ask = ToolCall("c", "approval", {})
    said = [system(" s "), user("q"), assistant("", ask), Message("tool", (ToolResult("c", "approval", "yes"),)),
            assistant("<think>x</think>y</think> a "), user("<think>q</think>")]  # fmt: skip
    assert _transcript(said) == [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "<think>q</think>")]
    assert (
        len({_hash(each) for each in ([("user", "q")], [("user", "r")], [("assistant", "q")], [("user", "q")] * 2)})
        == 4
    )
    result = Message("tool", (ToolResult("c", "approval", "yes"),))
    assert (
        _tail([result, user("q"), result, result]) == [result, result]
        and _tail([user("q")]) == []
        and _tail([result]) == [result]
    )


def test_steps_are_lines_and_tokens_those_of_the_turn() -> None:
    tool = Began(":0", "tool", 0, {"name": "pay", "arguments": {"amount": 1, "to": "x" * 600}})
    (line,) = _lines(tool)
    assert (
        line.startswith('\npay({"amount":1,"to":"x') and line.endswith("x)\n") and len(line) == 500 + len("\npay()\n")
    )
    assert _lines(Began(":0", "generate", 0)) == [] and _lines(Piece(":0", "word")) == ["word"]

    def call(id: str, kind: Any = "tool", tokens: int = 0, **more: Any) -> Call:
        return Call(id, kind, 0, 0.0, 1.0, "r", Usage(tokens, 1, 2), **more)

    assert _lines(call(":0", detail={"result": "y" * 501})) == ["-> " + "y" * 500 + "\n"]
    assert _lines(call(":0", error="broke")) == ["-> broke\n"] and _lines(call(":0", "generate")) == []
    calls = (
        call("1.0:0", tokens=1),
        call("2.0:0", tokens=10),
        call("2.0/0.1:0", tokens=100),
        call("12.0:0", tokens=1000),
    )
    trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 1.0, calls=calls)
    assert [_usage(trace, number).prompt_tokens for number in (1, 2, 12, 3)] == [1, 110, 1000, 0] and _usage(
        None, 1
    ) == Usage()


def test_an_approval_is_a_call_with_all_that_a_person_needs(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "pay")
    plain = store.asked(turn.id, ":0", "pay", "irreversible", {"amount": 5}, "Pay 5?", None)
    call = _call(plain)
    assert (call.id, call.name, call.arguments) == (plain.id, "approval", {
        "approval": plain.id, "tool": "pay", "effect": "irreversible", "arguments": {"amount": 5}, "question": "Pay 5?",
    })  # fmt: skip
    form = store.asked(turn.id, ":1", "ask", "read", {}, "Name?", [FormField("name", "text")])
    assert list(_call(form).arguments)[-1] == "schema"
    store.close()


def test_settings_and_files_of_agents_are_checked_at_their_ends(tmp_path: Path) -> None:
    SessionSettings(max_turns=1, open_turns=1, poll_s=3599)
    for options, says in (
        ({"max_turns": 0}, "max_turns is 0: give 1 or more"), ({"open_turns": 0}, "open_turns is 0: give 1 or more"),
        ({"poll_s": 0}, "poll_s is 0: give a number of seconds above 0"), ({"poll_s": 3600}, "poll_s is 3600: give a number "
         "of seconds above 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            SessionSettings(**options)  # type: ignore[arg-type]
        assert str(told.value) == says
    for name in ("", "x" * 65, "a/b", "a\n"):
        with pytest.raises(ConfigError, match="give 1 to 64 letters, digits, blanks, dots and dashes"):
            AgentFile("m", name=name)
    assert AgentFile("m", name="x" * 64).pattern == "react" and AgentFile("m", name="Ä b.c-d_e")
    file = tmp_path / "agent.toml"
    file.write_text(
        'name = "clerk"\nmodel = "scripted"\npattern = "react:max_steps=4"\ntools = ["calculator"]\nsystem = "Be kind."\n'
        'approve = ["read=ask"]\nmax-tokens = 7\ntemperature = 0.5\n'
        "budget-tokens = 1\nbudget-calls = 2\nbudget-seconds = 3.0\nbudget-usd = 4.0\n"
    )
    read = read_agent_file(file)
    assert read == AgentFile(
        "scripted", "clerk", pattern="react:max_steps=4", tools=("calculator",), system="Be kind.", approve=("read=ask",),
        max_tokens=7, temperature=0.5, budget_tokens=1, budget_calls=2, budget_seconds=3.0, budget_usd=4.0,
    )  # fmt: skip
    file.write_text('name = "clerk"\n')
    with pytest.raises(ConfigError, match=r'agent\.toml. names no model: write model = "smollm2"'):
        read_agent_file(file)
    with pytest.raises(ConfigError) as twice:
        open_agent(AgentFile("m", tools=("calculator", "calculator")))
    assert str(twice.value) == "tools is calculator,calculator, which gives two tools named 'calculator': leave one out"


def test_an_agent_of_a_file_has_every_part_that_it_names(tmp_path: Path) -> None:
    file = AgentFile(
        "scripted:echo", "clerk", "d", "react:max_steps=4", ("calculator",), "be kind", ("redact:pattern=SECRET",),
        "notes:lifetime=agent", ("external=ask", "calculator=deny"), 77, 0.25, 8, 7, 6.5, 0.125,
    )  # fmt: skip
    made = open_agent(file)
    assert (made.name, made.pattern.__name__, made.options, made.system) == (
        "clerk",
        "react",
        {"max_steps": 4},
        "be kind",
    )
    assert (made.sampling.max_tokens, made.sampling.temperature) == (77, 0.25)
    assert made.limits == Limits(tokens=8, calls=7, seconds=6.5, cost_usd=0.125)
    assert [tool.name for tool in made.tools] == ["calculator"] and made.memory is not None and len(made.guards) == 1
    assert (made.approval.rules["external"], made.approval.rules["calculator"]) == ("ask", "deny")
    bare = open_agent(AgentFile("scripted:echo"))
    assert (bare.name, bare.tools, bare.guards, bare.memory, bare.system) == ("agent", (), (), None, None)
    assert (bare.limits, bare.sampling.max_tokens) == (Limits(), 1024)
    with pytest.raises(ConfigError, match=r"^device is 'cuda:1', and scripted:echo does not run here"):
        open_agent(AgentFile("scripted:echo", device="cuda:1"))


def test_an_agent_of_a_file_may_hold_mcp_servers_beside_tools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mcp")
    servers, path = tmp_path / "servers.toml", tmp_path / "agent.toml"
    servers.write_text('[servers.weather]\ncommand = "w"\n[servers.maps]\ncommand = "m"\nshared = true\n')
    text = (
        f'model = "scripted:echo"\ntools = ["mcp:{servers}", "calculator"]\nguard = ["policy"]\n'
        'approve = ["weather__forecast=ask", "maps__=deny", "external=ask"]\n'
    )
    path.write_text(text)
    made = open_agent(read_agent_file(path))
    assert made.to_json()["tools"] == ["calculator", "mcp:maps", "mcp:weather"]
    assert [each.name for each in made.own_tools] == ["calculator"] and len(made.sources) == 1
    assert made.approval.rules == {"weather__forecast": "ask", "maps__": "deny", "external": "ask"}
    path.write_text(text.replace("weather__f", "whether__f"))
    with pytest.raises(ConfigError, match=r"^approve names 'whether__forecast', no tool and no effect;"):
        open_agent(read_agent_file(path))
    with pytest.raises(ConfigError, match="which gives two tools named 'mcp:time': leave one out"):
        open_agent(AgentFile("scripted:echo", tools=("mcp:time", "mcp:time")))
    known = "Tools of MCP servers are known when a server is opened, and are not counted here.\n"
    for servers_of_it, is_told in ((f"mcp:{servers}#weather", True), (f"mcp:{servers}#maps", True), ("fetch", False)):
        path.write_text(text.replace(f"mcp:{servers}", servers_of_it).partition("approve")[0])
        assert safety(SafetyConfig("explain", path)) == 0
        assert capsys.readouterr().out.endswith(known) is is_told
        assert safety(SafetyConfig("tests", path)) == 0
        source = servers_of_it.rpartition("#")[2]
        told = f"# mcp:{source} has no tests: its tools are known when it is opened\n"
        assert capsys.readouterr().out.endswith(told) is is_told


# -- requests --


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "q"}], **fields})


def refused(function: Any, *given: Any, **named: Any) -> tuple[str, str | None, str | None]:
    with pytest.raises(Refusal) as told:
        function(*given, **named)
    assert told.value.status == 400
    return told.value.message, told.value.param, told.value.code


def test_messages_become_a_conversation_with_calls_results_and_thoughts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": '{"a": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "[1]"}}
    body = chat(messages=[
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": ""}, {"role": "assistant", "tool_calls": [call, broken]},
        {"role": "tool", "tool_call_id": "c2", "content": "seen"},
        {"role": "assistant", "content": "done", "reasoning_content": "why"},
    ])  # fmt: skip
    found = parsing.messages(body.messages, thinks=True)
    assert found == [
        Message("system", (Text("ab"),)), Message("user", (Text(""),)),
        Message("assistant", (ToolCall("c1", "pay", {"a": 1}), ToolCall("c2", "look", {}, "[1]"))),
        Message("tool", (ToolResult("c2", "look", "seen"),)),
        Message("assistant", (Text("<think>\nwhy\n</think>\n\ndone"),)),
    ]  # fmt: skip
    assert parsing.messages(body.messages)[-1] == Message("assistant", (Text("done"),))
    for last, says, param in (
        ({"role": "tool", "tool_call_id": "c9", "content": "x"}, "messages.1.tool_call_id is 'c9': no call of that id comes "
         "before it", "messages.1.tool_call_id"),
        ({"role": "assistant"}, "messages.1.content is missing: give a text", "messages.1.content"),
        ({"role": "user", "content": "x", "tool_calls": [call]}, "messages.1.tool_calls does not belong to the role user: "
         "only an assistant calls tools", "messages.1.tool_calls"),
        ({"role": "system", "content": "x", "reasoning": "r"}, "messages.1.reasoning_content does not belong to the role "
         "system: only an assistant thinks", "messages.1.reasoning_content"),
    ):  # fmt: skip
        bad = chat(messages=[{"role": "user", "content": "q"}, last])
        assert refused(parsing.messages, bad.messages) == (says, param, None)


def test_sampling_takes_recommendations_only_where_a_request_says_nothing() -> None:
    limits = ClientLimits(max_tokens=100, max_answers=2, min_priority=-1)

    class Facts:
        recommended = (("temperature", 0.6), ("top_k", 20), ("max_tokens", 50))

    def made(max_tokens: int | None = None, **fields: Any) -> Any:
        facts: Any = Facts()
        return parsing.sampling(
            chat(**fields), limits, max_tokens=max_tokens, top_logprobs=3, grammar=None, facts=facts
        )

    bare = made()
    assert (bare.max_tokens, bare.temperature, bare.top_k, bare.top_p, bare.top_logprobs) == (50, 0.6, 20, 1.0, 3)
    said = made(100, top_p=0.5, stop=["a", "", "b"], seed=3, presence_penalty=0.5, frequency_penalty=0.25, min_tokens=100,
                logit_bias={"5": -1.0}, stop_token_ids=[7], ignore_eos=True, top_k=-1, n=2, priority=-1)  # fmt: skip
    assert (said.max_tokens, said.temperature, said.top_k, said.top_p, said.stop, said.seed) == (
        100,
        1.0,
        0,
        0.5,
        ("a", "b"),
        3,
    )
    assert (said.presence_penalty, said.frequency_penalty, said.min_tokens) == (0.5, 0.25, 100)
    assert (said.logit_bias, said.stop_ids, said.ignore_eos, said.allowed_token_ids) == (((5, -1.0),), (7,), True, None)
    assert made(0).max_tokens == 1 and made(stop="x").stop == ("x",) and made(temperature=0.0).temperature == 0.0
    for given, says, param in (
        ({"max_tokens": 101}, "max_completion_tokens is 101: at most 100 are given", "max_completion_tokens"),
        ({"n": 3}, "n is 3: at most 2 answers are given", "n"),
        ({"priority": -2}, "priority is -2: at least -1 is taken with this key", "priority"),
        ({"stop": ["x" * 1025]}, "a stop string has more than 1024 characters", "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options is only for streams: set stream to true",
         "stream_options"),
        ({"min_tokens": 51}, "min_tokens is 51: the answer has at most 50", "min_tokens"),
        ({"logit_bias": {"-1": 1.0}}, "logit_bias names the token '-1': a token id was expected", "logit_bias"),
    ):  # fmt: skip
        assert refused(made, given.pop("max_tokens", None), **given)[:2] == (says, param)
    assert made(stop=["x" * 1024]).stop == ("x" * 1024,)


def test_tools_and_forms_of_an_answer_are_one_of_each() -> None:
    tools = [{"type": "function", "function": {"name": name, "description": "d"}} for name in ("pay", "look")]
    named = {"type": "function", "function": {"name": "look"}}
    found = [parsing.tools(chat(tools=tools, **more)) for more in (
        {}, {"tool_choice": "required"}, {"tool_choice": named}, {"tool_choice": "none"},
        {"parallel_tool_calls": False})]  # fmt: skip
    assert [(len(each.specs), each.choice, each.parallel, each.must_call) for each in found] == [
        (2, "auto", True, False), (2, "required", True, True), (2, "look", True, True), (0, "auto", True, False),
        (2, "auto", False, False),
    ]  # fmt: skip
    assert (
        refused(parsing.tools, chat(tool_choice="required"))[0] == "tool_choice demands a call, and there are no tools"
    )
    assert refused(parsing.tools, chat(tools=tools[:1], tool_choice=named))[0] == (
        "tool_choice names 'look', which is none of the tools"
    )
    assert refused(parsing.tools, chat(tools=[tools[0], tools[0]])) == (
        "two tools have the same name: give each its own", "tools", None,
    )  # fmt: skip
    array = {"type": "function", "function": {"name": "x", "parameters": {"type": "array"}}}
    assert refused(parsing.tools, chat(tools=[tools[0], array]))[:2] == (
        "tools.1.function.parameters has type 'array': arguments are an object", "tools.1.function.parameters",
    )  # fmt: skip
    assert parsing.structure(chat()) is None
    assert parsing.structure(chat(guided_regex="a+")) is not None
    message, param, _ = refused(parsing.structure, chat(guided_regex="a", guided_choice=["b"]))
    assert (message, param) == (
        "guided_regex and guided_choice both say what the answer must look like: give one", "guided_choice",
    )  # fmt: skip
    assert [parsing.needs_tokens(chat(**more)) for more in (
        {}, {"min_tokens": 0}, {"min_tokens": 1}, {"bad_words": []}, {"ignore_eos": False}, {"skip_special_tokens": False},
        {"logit_bias": {}}, {"priority": 0})] == [
        None, None, "min_tokens", None, None, "skip_special_tokens", "logit_bias", "priority",
    ]  # fmt: skip


# -- what is kept --


def test_sampled_tokens_come_back_to_their_client_and_conversation_within_bounds() -> None:
    turns = SampledTurns(max_answers=2, max_tokens=5)

    def answer(text: str, *ids: int) -> Message:
        return Message("assistant", (Text(text),), Sampled(ids, (-0.5,) * len(ids)))

    def known(client: str, *said: Message) -> list[Any]:
        return [each.sampled and each.sampled.token_ids for each in turns.recall(client, said)]

    turns.remember("ann", [user("q")], answer("a", 1, 2))
    turns.remember("ann", [user("q")], answer("a", 9, 9))
    turns.remember("ann", [user("q"), assistant("a"), user("r")], answer("b", 3))
    turns.remember("ann", [user("z")], answer("none"))
    talk = (user("q"), assistant("a"), user("r"), assistant("b"))
    assert known("ann", *talk) == [None, (1, 2), None, (3,)] and known("bob", *talk) == [None] * 4 and len(turns) == 2
    assert known("ann", user("q"), assistant("b")) == [None, None]
    turns.recall("ann", talk[:2])  # used last
    turns.remember("ann", [user("x")], answer("y", 4))
    assert known("ann", *talk) == [None, (1, 2), None, None] and len(turns) == 2
    turns.remember("ann", [user("x2")], answer("y", 4, 5, 6))
    assert known("ann", *talk[:2]) == [None, (1, 2)] and len(turns) == 2, "2 and 3 tokens are 5"


def test_responses_are_kept_for_their_client_the_oldest_go_first() -> None:
    async def main() -> None:
        kept = ResponseStore(max_responses=2, max_bytes=10_000)
        for id in ("a", "b", "a", "c"):
            assert await kept.keep("ann", {"id": id, "text": f"{id} é"}, ())
        assert json.loads(await kept.response("ann", "a")) == {"id": "a", "text": "a é"}
        assert await kept.items("ann", "c") == []
        for client, id in (("ann", "b"), ("bob", "a")):
            with pytest.raises(Refusal) as told:
                await kept.items(client, id, "previous_response_id")
            assert (told.value.status, told.value.message, told.value.param, told.value.code) == (
                404, f"there is no response {id!r} here: it was not kept, or is forgotten", "previous_response_id",
                "response_not_found",
            )  # fmt: skip
        before = kept.size_bytes("ann")
        again: Any = {"id": "c", "text": "c é"}
        assert await kept.keep("ann", again, ()) and kept.size_bytes("ann") == before, "in place of the earlier one"
        assert kept.size_bytes("bob") == 0 and before > 2 * ENTRY_BYTES
        kept.delete("ann", "a")
        assert ENTRY_BYTES < kept.size_bytes("ann") < before
        with pytest.raises(Refusal):
            kept.delete("ann", "a")
        body: Any = {"id": "x", "text": ""}
        length = len(json.dumps(body))
        assert await ResponseStore(max_responses=1, max_bytes=length + ENTRY_BYTES).keep("ann", body, ())
        assert not await ResponseStore(max_responses=1, max_bytes=length + ENTRY_BYTES - 1).keep("ann", body, ())
        assert not await ResponseStore(max_responses=0, max_bytes=10_000).keep("ann", body, ())

    asyncio.run(main())
