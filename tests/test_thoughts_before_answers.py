"""A model whose prompt opens a thought: it thinks freely, and its form and its calls are those of the answer behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from firsthand import grammar as forms
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.grammar import Grammar
from firsthand.message import assistant, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers.local import Local
from firsthand.serve.anthropic.anthropic_messages import messages
from firsthand.serve.openai.chat_completions import ChatJob, chat_completions, chat_job, count_reasoning
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.responses import responses
from firsthand.tokens.calls.call_grammar import tool_grammar
from firsthand.tokens.calls.call_parser import CallStream, parse
from firsthand.tokens.calls.thought_text import ThoughtText
from firsthand.tokens.llguidance_grammar import byte_vocabulary, matcher_of
from served import Running, serving
from spelled_model import SpelledModel, answered, request_with, state_of
from tiny import CHATML, write_model

HTTP = httpx.Client(verify=False, timeout=60)
HI = [{"role": "user", "content": "Hi"}]
PARAMETERS = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
ADD = ToolSpec("add", "", PARAMETERS)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
NUMBER = {"type": "json_schema", "json_schema": {"name": "n", "schema": PARAMETERS}}


# -- calls --


@pytest.mark.parametrize(
    ("is_open", "text", "rest", "num_calls"),
    [
        (True, f"Maybe {CALL} or not.\n</think>\n\nI will not.", None, 0),
        (True, f"so</think>\n\n{CALL}", "so</think>", 1), (True, f"</think>{CALL}{CALL}", "</think>", 2),
        (True, f"{CALL}</think>{CALL}", f"{CALL}</think>", 1), (True, f"never closed {CALL}", None, 0),
        (True, f"</thin{CALL}</think", None, 0), (True, f"<<</think></think>{CALL}", "<<</think></think>", 1),
        (True, f"{CALL}<", None, 0), (True, "</think></thi", None, 0),
        (False, f" \n<think>{CALL}</think>\nno", None, 0), (False, f"<think>{CALL}", None, 0),
        (False, f"<think>x</think>\n{CALL}", "<think>x</think>", 1), (False, f"<thin {CALL}", "<thin", 1),
        (False, f" {CALL}", "", 1), (False, f"so <think> {CALL}</think>", "so <think> </think>", 1),
        (False, "<thi", None, 0), (False, " \n ", None, 0), (False, "", None, 0),
        (False, f"</think>{CALL}", "</think>", 1), (True, '</think>\n{"name": "add", "arguments": {"a": 1}}', "</think>", 1),
    ],
)  # fmt: skip
def test_a_call_counts_behind_the_thought_alone_however_the_text_is_cut(
    is_open: bool, text: str, rest: str | None, num_calls: int
) -> None:
    found, calls = parse(text, [ADD], thought=ThoughtText(is_open=is_open))
    assert (found, len(calls)) == (text if rest is None else rest, num_calls)
    assert all(call.name == "add" and call.arguments == {"a": 1} for call in calls)
    for size in (1, 2, 3, 7):
        stream = CallStream([ADD], thought=ThoughtText(is_open=is_open))
        pieces = [each for at in range(0, len(text), size) for each in stream.feed(text[at : at + size])]
        pieces += stream.finish()
        assert "".join(each for each in pieces if isinstance(each, str)) == found
        assert (
            stream.calls == calls and len({each.index for each in pieces if isinstance(each, CallDelta)}) == num_calls
        )


# -- grammars --


def reads(grammar: Grammar, text: str, *, forcing: bool = True) -> bool:
    matcher = matcher_of(grammar, byte_vocabulary(), forcing=forcing)
    return matcher.try_consume_tokens(list(text.encode())) == len(text.encode()) and matcher.is_accepting()


@pytest.mark.parametrize("forcing", [True, False])
@pytest.mark.parametrize(
    ("answer", "good", "bad"),
    [
        (forms.json_schema(PARAMETERS), '{"a": 1}', '{"a": 3}'), (forms.regex("ab+"), "abb", "b"),
        (forms.choice(["yes", "no"]), "no", "maybe"), (forms.lark('start: "x" y\ny: "z"'), "xz", "x"),
        (forms.gbnf('root ::= "p" "q"'), "pq", "p"),
    ],
)  # fmt: skip
def test_a_grammar_after_a_thought_leaves_the_thought_free(answer: Grammar, good: str, bad: str, forcing: bool) -> None:
    late = replace(answer, after_thought=True)
    assert Grammar.from_json(json.loads(json.dumps(late.to_json()))) == late != answer
    assert "after_thought" not in answer.to_json() and late.to_json()["after_thought"] is True
    for each in (answer, late):
        assert Sampling(grammar=each).to_json()["grammar"] == each.to_json()
    for thought in ("</think>", f"hm {bad} <b>é</thi\n\n</think>\n\n", f"{good}</think>\n"):
        assert reads(late, thought + good, forcing=forcing) and not reads(late, thought + bad, forcing=forcing)
        assert not reads(answer, thought + good, forcing=forcing)
    assert not reads(late, good, forcing=forcing) and not reads(late, f"</think>{good}</think>{good}", forcing=forcing)
    assert not reads(late, f"</think>\n\n\n{good}", forcing=forcing)


def test_a_grammar_that_spells_the_end_of_the_thought_itself_is_known() -> None:
    assert forms.regex("abc</think>yes").closes_thought and forms.lark('start: "a</think>" "b"').closes_thought
    assert not forms.regex("abc").closes_thought and not forms.json_schema({"const": "</think>"}).closes_thought
    described = 'start: "x" call\ncall: %json {"type": "object", "description": "</think>"}'
    assert not forms.lark(described).closes_thought and forms.lark(f'{described}\nb: "</think>"').closes_thought
    assert forms.lark(f'{described} "</think>"').closes_thought, "behind the schema on its line"
    lines = 'start: call "x"\ncall: %json {\n  "type": "string",\n  "description": "</think> %json {"\n}\n'
    assert not forms.lark(lines).closes_thought and not forms.lark(lines * 2).closes_thought
    assert forms.lark(f"{lines}b: /a<\\/think>/").closes_thought and forms.lark(f'"</think>" {lines}').closes_thought
    assert (
        forms.lark('start: %json {"</think>"').closes_thought and forms.lark('start: "%json" "</think>"').closes_thought
    )
    assert not forms.lark("start: %json " + '{"a":' * 40_000).closes_thought


# -- a whole server --


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    template = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    folder = write_model(tmp_path_factory.mktemp("model") / "m", template=template, specials=TAGS, max_position=2048)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))


@pytest.fixture(scope="module")
def running(local: Local) -> Iterator[Running]:
    with serving(local, name="tiny") as found:
        yield found


def post(running: Running, path: str, **body: Any) -> Any:
    end = running.server.app.models.model.token_id("</think>")  # as soon as the grammar allows it, the thought ends
    body = {"model": "tiny", "temperature": 1.0, **body}
    return HTTP.post(running.url + path, json={"logit_bias": {str(end): 100}, **body}).json()


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"response_format": NUMBER}, lambda text: json.loads(text)["a"] in (1, 2)),
        ({"guided_choice": ["yes", "no"]}, lambda text: text in ("yes", "no")),
        ({"guided_json": {**PARAMETERS, "allOf": [{"required": ["a"]}]}}, lambda text: json.loads(text)["a"] in (1, 2)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_form_is_that_of_the_content_behind_the_thought(
    running: Running, fields: dict[str, Any], fits: Any, stream: bool
) -> None:
    """The last schema is not cheap: its grammar is in a process of its own."""
    if not stream:
        (choice,) = post(running, "/v1/chat/completions", messages=HI, max_tokens=40, **fields)["choices"]
        assert choice["finish_reason"] == "stop" and fits(choice["message"]["content"])
        return
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
    end = str(running.models.model.token_id("</think>"))
    pieces: Any = client.chat.completions.create(
        model="tiny", messages=HI, stream=True, max_tokens=40, logit_bias={end: 100}, extra_body=fields
    )
    assert fits("".join(piece.choices[0].delta.content or "" for piece in pieces))


def test_a_thought_that_takes_all_tokens_is_cut_and_no_content(running: Running) -> None:
    (choice,) = post(
        running, "/v1/chat/completions", messages=HI, max_tokens=6, guided_choice=["yes", "no"], logit_bias={}, seed=1
    )["choices"]
    assert choice["finish_reason"] == "length" and choice["message"]["content"] == ""
    assert choice["message"]["reasoning_content"] not in ("yes", "no")


# -- requests --


class Opening(SpelledModel):
    """Its prompts end with the beginning of a thought, unless they are told not to."""

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        return list(b"no" if template else b"user: Hi; <think>\n")


def asked(handler: Any, *ids: bytes, thinks: bool = True, **body: Any) -> tuple[Grammar | None, Any]:
    """The grammar that the model gets, and the reply."""
    whole = Completion(assistant(""), "stop", Usage(1, 0, 9))
    model = Opening(*(Delta(each.decode(), token_ids=tuple(each)) for each in ids), Delta("", whole), thinks=thinks)
    told = answered(handler, state_of(model), body)
    return model.asked[-1]["sampling"].grammar, told


def test_every_door_asks_for_the_form_behind_the_thought() -> None:
    form = {"type": "json_schema", "schema": PARAMETERS}
    late = replace(forms.json_schema(PARAMETERS), after_thought=True)
    assert asked(chat_completions, messages=HI, response_format=NUMBER)[0] == late
    assert asked(responses, input="Hi", text={"format": {**form, "name": "n"}})[0] == late
    assert asked(messages, model="demo", messages=HI, max_tokens=9, output_config={"format": form})[0] == late
    quiet = {"chat_template_kwargs": {"enable_thinking": False}}
    assert asked(chat_completions, messages=HI, response_format=NUMBER, **quiet)[0] == forms.json_schema(PARAMETERS)
    assert asked(chat_completions, messages=HI, guided_regex="a</think>b")[0] == forms.regex("a</think>b")
    assert asked(chat_completions, messages=HI)[0] is None
    plain, _ = asked(chat_completions, thinks=False, messages=HI, guided_regex="ab")
    assert plain == forms.regex("ab"), "a model without thoughts"


def test_reasoning_is_counted_in_tokens_up_to_its_end() -> None:
    def counted(*pieces: bytes, **options: Any) -> int:
        stream = asked(responses, *pieces, input="Hi", stream=True, **options)[1]
        whole = asked(responses, *pieces, input="Hi", **options)[1]
        assert stream[-1]["response"]["usage"] == whole["usage"]
        assert asked(responses, *pieces, thinks=False, input="Hi")[1]["usage"]["output_tokens_details"] == {
            "reasoning_tokens": 0
        }
        return int(whole["usage"]["output_tokens_details"]["reasoning_tokens"])

    assert counted(b"so", b"</thi", b"nk>\n\nyes") == 10 and counted(b"never ends") == 10
    assert counted(b"</think>yes") == 8 and counted() == 0
    for stream in (False, True):
        told = asked(responses, b"<think>a</think>b", thinks=False, input="Hi", stream=stream)[1]
        whole = told[-1]["response"] if stream else told
        assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}, "all of it is content"
    job = replace(job_of(Opening(thinks=True)), starts_in_thought=False)
    assert count_reasoning(job, list(b" \n<think>a</think>b")) == 18 and count_reasoning(job, list(b"a</think>b")) == 0
    harmony = b"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"
    assert count_reasoning(job, list(harmony)) == 38 and count_reasoning(job, list(harmony[:-10])) == 38
    assert count_reasoning(job, list(harmony[:33])) == 33 and count_reasoning(job, list(harmony[51:])) == 0
    twice = harmony[:38] + b"<|start|>assistant" + harmony
    assert count_reasoning(job, list(twice)) == 94, "two analyses"
    for call in (
        b"<|channel|>analysis to=functions.a code<|message|>{}",
        b"<|start|>assistant to=functions.a<|channel|>analysis<|message|>{}",
    ):
        assert count_reasoning(job, list(call)) == 0 and count_reasoning(job, list(harmony[:38] + call)) == 38
    pairs = replace(job, starts_in_thought=True)
    pairs.served.tokens.spell = lambda ids: [b"hm", b"</thi", b"nk>yes", b"!"]  # type: ignore[union-attr,method-assign]
    assert count_reasoning(pairs, [1, 2, 3, 4]) == 3


def job_of(model: SpelledModel) -> ChatJob:
    return asyncio.run(chat_job(state_of(model), request_with({}), read(ChatRequest, {"messages": HI})))


# -- a model of ours --


@pytest.mark.parametrize(
    ("said", "num_calls"), [(f"Maybe {CALL} but no.\n</think>\n\nI will not.", 0), (f"so</think>\n{CALL}", 1)]
)
def test_a_call_that_a_local_model_only_considers_is_not_made(local: Local, said: str, num_calls: int) -> None:
    """A grammar of one text stands for what a model says."""
    sampling = Sampling(max_tokens=300, grammar=forms.choice([said]))

    async def both() -> tuple[Completion, list[Delta]]:
        whole = (await local.complete([user("Hi")], sampling, tools=[ADD]))[0]
        return whole, [each async for each in local.stream_many([user("Hi")], sampling, tools=[ADD])]

    whole, pieces = asyncio.run(both())
    assert whole.finish_reason == ("tool_calls" if num_calls else "stop")
    assert (
        len(whole.message.tool_calls)
        == num_calls
        == sum(each.call is not None and bool(each.call.name) for each in pieces)
    )
    assert "".join(each.text for each in pieces) == whole.message.text == (said if not num_calls else "so</think>")


def test_a_required_call_is_made_behind_the_thought_and_by_a_grammar_of_calls_alone(
    local: Local, running: Running
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
    (choice,) = post(
        running, "/v1/chat/completions", messages=HI, tools=[tool], tool_choice="required", parallel_tool_calls=False,
        max_tokens=200,
    )["choices"]  # fmt: skip
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and json.loads(call["function"]["arguments"])["a"] in (1, 2)
    alone = Sampling(max_tokens=200, grammar=tool_grammar([ADD], choice="required", parallel=False))
    (whole,) = asyncio.run(local.complete([user("Hi")], alone, tools=[ADD]))
    assert whole.finish_reason == "tool_calls" and not whole.message.text
