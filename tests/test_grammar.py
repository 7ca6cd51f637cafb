"""Grammars as data, and how they reach models: keys, wires, scripts, and the local provider's tool calls."""

import asyncio
import copy
import json
import random
import re
from dataclasses import replace

import pytest

import tiny
from firsthand import grammar as g
from firsthand.agent import Agent
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.decoding.constraint import ids_of
from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.loop.request_key import request_key
from firsthand.message import user
from firsthand.model import Sampling, ToolSpec
from firsthand.providers import openai_request as wire
from firsthand.providers.local import Local
from firsthand.providers.local_calls import compile_calls, with_calls
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tokens.calls import call_parser
from firsthand.tokens.calls.call_grammar import action_grammar, markup_of, tool_grammar
from firsthand.tokens.grammar_checks import accepts
from firsthand.tools.calculator import calculator
from grammar_schemas import obj
from grammar_tiny import answers, engine, request, tokenizer

OLD_KEY = "e349b80a3a18eb83f8d579d98b6537042596a8b0293d86fdc82e5d40b3e9d1f2"
"""What the version before grammars made of the same request."""
YES = g.choice(["yes", "no"])
HI = [user("hi")]
CALC = ToolSpec("calculator", "Computes.", obj({"expression": {"type": "string", "maxLength": 12}}))
WEATHER = ToolSpec(
    "get_weather",
    "Forecasts.",
    obj(
        {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        **{"$defs": {"City": {"enum": ["Paris", "Rome"]}}},
    ),
)
ODD = ToolSpec("odd", "Odd.", {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=a)b"}}})
CONFIG = EngineConfig(kv_memory_bytes=8 << 20, threads=1)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    model = Local(tiny.write_model(tmp_path_factory.mktemp("model"), max_position=2048), name="tiny", config=CONFIG)
    yield model
    model.close()


def hot(seed: int = 1, **settings) -> Sampling:
    return Sampling(**{"max_tokens": 200, "temperature": 1.0, "seed": seed, **settings})


# -- as data --


def test_a_sampling_without_a_grammar_keeps_its_old_key():
    assert "grammar" not in Sampling().to_json()
    assert request_key("model", "hi", Sampling()) == OLD_KEY


def test_a_grammar_is_part_of_the_key_and_survives_json():
    sampling = Sampling(grammar=YES)
    assert request_key("model", "hi", sampling) != request_key("model", "hi", Sampling())
    assert request_key("model", "hi", sampling) != request_key("model", "hi", Sampling(grammar=g.choice(["no", "yes"])))
    assert Grammar.from_json(json.loads(json.dumps(sampling.to_json()["grammar"]))) == YES


def test_properties_keep_the_order_of_the_schema():
    schema = {
        "type": "object",
        "properties": {"why": {"type": "null"}, "answer": {"type": "null"}},
        "required": ["why", "answer"],
    }
    ((said, _),) = answers(engine(), [request(g.json_schema(schema | {"additionalProperties": False}), hot())])[0]
    assert said == '{"why": null, "answer": null}'


def test_a_sampling_refuses_what_is_no_grammar():
    with pytest.raises(ConfigError, match="grammar is"):
        Sampling(grammar="[a-z]+")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grammar", "good", "begun", "bad"),
    [
        (YES, "yes", "ye", "maybe"),
        (g.regex("[a-z]+[0-9]"), "ab1", "ab", "1"),
        (
            g.json_schema({"type": "object", "properties": {"a": {"type": "integer"}}}),
            '{ "a" :\n 1 }',
            '{"a"',
            '{"a": "x"}',
        ),
        (g.lark('start: "a" "b"'), "ab", "a", "b"),
        (g.gbnf('root ::= "a" "b"'), "ab", "a", "b"),
    ],
)
def test_accepts_tells_whole_texts_from_beginnings_and_from_wrong_ones(grammar, good, begun, bad):
    assert accepts(grammar, good) and not accepts(grammar, begun) and not accepts(grammar, bad)
    assert accepts(grammar, begun, whole=False) and not accepts(grammar, bad, whole=False)
    assert accepts(grammar, good, whole=False) and accepts(grammar, "", whole=False) and not accepts(grammar, "")
    for text in ("\ud800", good + "\ud800", begun + "\ud800"):
        assert accepts(grammar, text) is False and accepts(grammar, text, whole=False) is False, "no text of UTF-8"


# -- on the wire --


@pytest.mark.parametrize(
    ("grammar", "field", "what"),
    [
        (YES, "choice", ["yes", "no"]),
        (g.regex("a+"), "regex", "a+"),
        (g.lark('start: "a"'), "grammar", 'start: "a"'),
        (g.gbnf('root ::= "a"'), "grammar", 'root ::= "a"'),
    ],
)
def test_an_endpoint_is_asked_for_a_grammar_as_vllm_takes_it(grammar, field, what):
    body = wire.request("m", HI, Sampling(grammar=grammar), (), 1, token_ids=False, limit="max_tokens")
    assert body["structured_outputs"] == {field: what} and "response_format" not in body


def test_a_schema_is_openais_response_format_in_a_chat_and_vllms_after_plain_text():
    sampling = Sampling(grammar=g.json_schema({"type": "object"}))
    body = wire.request("m", HI, sampling, (), 1, token_ids=False, limit="max_tokens")
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }
    body = wire.request("m", "hi", sampling, (), 1, token_ids=False, limit="max_tokens")
    assert body["structured_outputs"] == {"json": {"type": "object"}}


def test_openai_itself_is_not_asked_for_what_it_does_not_know():
    model = OpenAIModel("gpt-x", api_key="sk-x")
    for prompt, grammar in ((HI, YES), ("hi", g.json_schema({"type": "object"}))):
        with pytest.raises(ConfigError, match="JSON schemas after a conversation"):
            asyncio.run(model.complete(prompt, Sampling(grammar=grammar)))


def test_a_script_must_fit_the_grammar():
    good, bad = Scripted(["yes"]), Scripted(["perhaps"])
    assert asyncio.run(good.complete(HI, Sampling(grammar=YES)))[0].message.text == "yes"
    with pytest.raises(ModelError, match="does not fit the choice grammar"):
        asyncio.run(bad.complete(HI, Sampling(grammar=YES)))
    stopped = Sampling(grammar=g.regex("[a-z]+, [a-z]+[.]"), stop=(",",))
    assert asyncio.run(Scripted(["well, yes."]).complete(HI, stopped))[0].message.text == "well"


# -- here --


def test_a_pattern_asks_for_a_grammar_and_the_trace_says_so(local):
    async def ask(task, ctx):
        return (await ctx.say(task.question).generate(grammar=YES, temperature=1.0)).text

    trace = asyncio.run(rollout(Agent("asks", model=local, pattern=ask), Task("t", "Is it?", "yes"), seed=3))
    assert trace.error is None and trace.answer in ("yes", "no")
    assert trace.calls[0].detail["sampling"]["grammar"] == YES.to_json()


def test_the_local_model_keeps_to_a_grammar_streamed_or_not(local):
    sampling = hot(grammar=g.regex("[a-z]{3,9}[.] [A-Z]{2}"))

    async def streamed():
        return "".join([delta.text async for delta in local.stream(HI, sampling)])

    texts = [each.message.text for each in asyncio.run(local.complete(HI, sampling, n=6))]
    assert all(re.fullmatch("[a-z]{3,9}[.] [A-Z]{2}", text) for text in texts) and len(set(texts)) > 1
    assert asyncio.run(streamed()) == texts[0]


def test_a_bad_grammar_fails_its_own_request_alone(local):
    async def both():
        return await asyncio.gather(
            local.complete(HI, hot(grammar=g.lark("start: nothing"))),
            local.complete(HI, hot(grammar=YES)),
            return_exceptions=True,
        )

    bad, good = asyncio.run(both())
    assert isinstance(bad, ConfigError) and good[0].message.text in ("yes", "no")


def test_a_conversation_goes_on_after_a_constrained_answer(local):
    first = asyncio.run(local.complete(HI, hot(grammar=YES)))[0]
    second = asyncio.run(local.complete([*HI, first.message, user("sure?")], hot(grammar=YES)))[0]
    assert second.usage.cached_tokens >= first.usage.prompt_tokens and second.message.text in ("yes", "no")


# -- tool calls --


@pytest.mark.slow
@pytest.mark.parametrize("markup", ["hermes", "llama3", "mistral"])
@pytest.mark.parametrize("choice", ["required", "get_weather"])
def test_required_calls_are_all_valid(markup, choice):
    grammar = tool_grammar([CALC, WEATHER], choice=choice, markup=markup)
    found = answers(engine(max_sequences=32), [request(grammar, hot(seed)) for seed in range(12)])
    names = set()
    for ((said, last),) in found:
        rest, calls = call_parser.parse(said)
        if last.finish_reason == "stop":
            assert calls and not rest
            assert all(valid(call) for call in calls), said
            names |= {call.name for call in calls}
    assert names == ({"get_weather"} if choice == "get_weather" else {"calculator", "get_weather"})


@pytest.mark.parametrize(
    ("markup", "mark"), [("hermes", "<tool_call>"), ("mistral", "[TOOL_CALLS]"), ("llama3", '{"name"')]
)
def test_words_are_free_until_a_call_begins(markup, mark):
    """Each answer is led into the mark of a call, at once or after words, and is on its own from there."""
    grammar = tool_grammar([CALC, WEATHER], markup=markup)
    for seed, words in enumerate(
        ["", "", "", *([] if markup == "llama3" else ["I need the sum.\n", "日本 <", "Well"])]
    ):
        guided = request(grammar, hot()).grammar.guide()
        said = drawn(guided, tokenizer().encode(words + mark), random.Random(seed))
        rest, calls = call_parser.parse(said)
        assert calls and all(valid(call) for call in calls), said
        assert words.strip() in rest


def drawn(guide, led: list[int], rng: random.Random) -> str:
    """A text that begins with tokens one is led to, and goes on at random until a call is whole."""
    ids: list[int] = []
    while len(ids) < 400 and not guide.is_done:
        if guide.forced:
            token = guide.forced[0]
        elif len(ids) < len(led):
            token = led[len(ids)]
            assert guide.allows(token)
        else:
            token = int(rng.choice(list(ids_of(guide.allowed))))
            text = tokenizer().decode(ids, skip_special=False)
            if token in tokenizer().eos_ids or (call_parser.parse(text)[1] and guide.matcher.is_accepting()):
                break
        guide.advance(token)
        ids.append(token)
    return tokenizer().decode(ids, skip_special=False)


def valid(call) -> bool:
    if call.invalid is not None:
        return False
    if call.name == "calculator":
        return set(call.arguments) == {"expression"} and len(call.arguments["expression"]) <= 12
    return call.arguments["city"] in ("Paris", "Rome") and 1 <= call.arguments["days"] <= 9


def test_constrained_react_reaches_an_answer_and_native_calls_need_no_option(local):
    from firsthand.patterns.react import react

    agent = Agent(
        "react", model=local, pattern=react, options={"constrained": True, "max_steps": 2}, tools=(calculator,)
    )
    trace = asyncio.run(rollout(replace(agent, sampling=hot(max_tokens=60)), Task("t", "What is 2 + 3?", "5"), seed=1))
    assert trace.error is None
    said = [node.message.text for node in trace.nodes if node.message.sampled is not None][:2]
    assert all(text.startswith("Thought: ") for text in said)
    with pytest.raises(ConfigError, match="actions in text"):
        replace(agent, options={"constrained": True, "native": True})


def test_the_markup_comes_from_the_template():
    assert markup_of("{{ messages }}") == "hermes"
    assert markup_of("{% if tools %}<tool_call>{% endif %}") == "hermes"
    assert markup_of("{% if tools %}[TOOL_CALLS]{% endif %}") == "mistral"
    assert markup_of("{% if tools %}<|python_tag|>{% endif %}") == "llama3"
    assert markup_of("{% if tools %}<call>{% endif %}") is None


@pytest.mark.parametrize("given", ['["yes", 1]', "[1]", "[]", '"yes"', '{"yes": 1}'])
def test_choices_are_a_list_of_texts(given):
    with pytest.raises(ConfigError) as refused:
        g.Grammar("choice", given)
    assert str(refused.value) == f"the choices are {json.loads(given)!r}: give a list of one text or more"


def test_the_empty_text_is_no_choice_of_its_own():
    with pytest.raises(ConfigError, match=r"^the only choice is the empty text: give another one$"):
        g.choice([""])
    assert g.choice(["", "yes"]).parsed() == ["", "yes"]


def test_a_call_of_no_tool_is_refused():
    with pytest.raises(ConfigError, match="name of a tool"):
        tool_grammar([CALC], choice="weather")
    with pytest.raises(ConfigError, match="needs a tool"):
        tool_grammar([])


def test_native_tools_are_constrained_unless_one_asks_not_to(local):
    grammar = tool_grammar([CALC, WEATHER], choice="required")
    for completion in asyncio.run(local.complete(HI, hot(grammar=grammar), tools=[CALC, WEATHER], n=5)):
        if completion.finish_reason == "tool_calls":
            assert all(valid(call) for call in completion.message.tool_calls)
    loaded = asyncio.run(local._ready())
    asyncio.run(local.complete(HI, hot(max_tokens=3), tools=[CALC]))
    assert loaded.grammars.find(tool_grammar([CALC])) is not None
    local.free_calls = True
    asyncio.run(local.complete(HI, hot(max_tokens=3), tools=[WEATHER]))
    local.free_calls = False
    assert loaded.grammars.find(tool_grammar([WEATHER])) is None


def test_calls_that_a_sampling_demands_are_made(local):
    async def asked(**settings):
        tools = [CALC, WEATHER]
        whole = await local.complete(HI, hot(**settings), tools=tools, n=3)
        streamed = [each.completion async for each in local.stream(HI, hot(7, **settings), tools=tools)]
        ended = [each for each in [*whole, streamed[-1]] if each.finish_reason == "tool_calls"]
        return [[call.name for call in each.message.tool_calls] for each in ended]

    named = asyncio.run(asked(tool_choice="get_weather", parallel_tool_calls=False))
    assert named and all(names == ["get_weather"] for names in named)
    required = asyncio.run(asked(tool_choice="required"))
    assert required and all(set(names) <= {"calculator", "get_weather"} for names in required)
    one = tool_grammar([CALC, WEATHER], parallel=False)
    asyncio.run(local.complete(HI, hot(max_tokens=3, parallel_tool_calls=False), tools=[CALC, WEATHER]))
    loaded = asyncio.run(local._ready())
    assert loaded.grammars.find(one) is not None
    mine = Sampling(max_tokens=3, parallel_tool_calls=False, grammar=g.choice(["a"]))
    assert asyncio.run(with_calls(loaded, HI, mine, [CALC])) is mine, "a grammar of the request's own rules"
    assert asyncio.run(with_calls(loaded, HI, Sampling(parallel_tool_calls=False), [])).grammar is None
    strict = Sampling(strict_tools=("calculator", "gone"))
    assert asyncio.run(with_calls(loaded, HI, strict, [CALC, WEATHER])).grammar == tool_grammar([CALC, WEATHER])
    assert asyncio.run(with_calls(loaded, HI, strict, [WEATHER])) is strict, "no strict tool is offered"


@pytest.mark.parametrize("opens", [True, False])
def test_demanded_calls_follow_the_thought_that_a_prompt_opens(local, opens):
    loaded = asyncio.run(local._ready())
    text = "hi <think>\n" if opens else "hi <think></think>"
    for prompt in (text, loaded.tokenizer.encode(text)):
        made = asyncio.run(with_calls(loaded, prompt, Sampling(tool_choice="required"), [CALC])).grammar
        assert made == replace(tool_grammar([CALC], choice="required"), after_thought=opens)
    chat = copy.copy(loaded.chat)
    chat.markup = None
    unknown = replace(loaded, chat=chat)
    with pytest.raises(ConfigError, match="leave out tool_choice, parallel_tool_calls and strict_tools"):
        asyncio.run(with_calls(unknown, text, Sampling(tool_choice="required"), [CALC]))


def test_a_tool_whose_schema_makes_no_grammar_may_still_be_called(local):
    loaded = asyncio.run(local._ready())
    for odd in (ODD, replace(ODD, parameters={"properties": {f"p{i}": {"enum": ["x" * 40]} for i in range(9000)}})):
        grammar = compile_calls(loaded.grammars, [CALC, odd], "hermes").grammar
        call = 'Well <tool_call>\n{"name": "NAME", "arguments": {"any": [1]}}\n</tool_call>'
        assert accepts(grammar, call.replace("NAME", "odd"))
        assert not accepts(grammar, call.replace("NAME", "calculator"), whole=False)


@pytest.mark.slow
def test_action_lines_are_what_react_reads():
    from firsthand.patterns.parts.actions import parse_action

    found = answers(
        engine(max_sequences=48),
        [request(action_grammar([CALC, WEATHER]), hot(seed, max_tokens=150)) for seed in range(24)],
    )
    names = set()
    for ((said, last),) in found:
        if last.finish_reason != "stop":
            continue
        name, given = parse_action(said)
        names.add(name)
        if name == "get_weather":
            assert json.loads(given)["city"] in ("Paris", "Rome")
        assert said.startswith("Thought: ") and name in ("calculator", "get_weather", "final answer")
    assert len(names) >= 2
    only = answers(engine(), [request(action_grammar([CALC], final=False, thought=False), hot(4))])[0][0][0]
    assert re.match(r"Action: calculator\[", only)
