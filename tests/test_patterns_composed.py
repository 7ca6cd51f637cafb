"""Patterns that lead patterns: in Python, by name, in TOML, and what the trace says of who spoke."""

import asyncio
import json
from functools import partial

import pytest

from firsthand import catalog
from firsthand.agent import Agent, pattern_name
from firsthand.commands.run import Config
from firsthand.config import build, parse, read_toml, split_list
from firsthand.errors import ConfigError, ModelError, UnknownName
from firsthand.loop.budget import Limits
from firsthand.loop.critical_path import critical_calls, critical_seconds
from firsthand.patterns.chain import chain
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parallel import parallel
from firsthand.patterns.parts.sub_patterns import attempt as attempt_branch
from firsthand.patterns.plan_execute import plan_execute
from firsthand.patterns.react import react
from firsthand.patterns.route import route
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.system.option_spec import Spec, parse_spec
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace

SUM = Task("1", "What is 3 * 4?", hint="a number", secret={"answer": "12"})


def run(pattern, model, /, *, task=SUM, limits=None, tools=(calculator,), **options):
    return asyncio.run(rollout(Agent("a", model, pattern, options, tools, limits=limits or Limits()), task))


def branches(trace):
    return [(event.data["name"], event.data["status"]) for event in trace.events if event.kind == "branch"]


def test_a_spec_may_hold_specs():
    assert parse_spec("self_consistency(react)") == Spec("self_consistency", {}, (Spec("react"),))
    spec = parse_spec("route(direct, react:max_steps=3,self_consistency(my.py:f:a=1):samples=2):x=y")
    assert spec.name == "route" and spec.options == {"x": "y"}
    assert spec.parts == (
        Spec("direct"),
        Spec("react", {"max_steps": "3"}),
        Spec("self_consistency", {"samples": "2"}, (Spec("my.py:f", {"a": "1"}),)),
    )
    assert parse_spec("work (old)/my.py:f") == Spec("work (old)/my.py:f")
    assert split_list("route(direct,react:max_steps=3),cot") == ["route(direct,react:max_steps=3)", "cot"]
    assert split_list("a(b.gguf,c)d,e") == ["a(b.gguf,c)d", "e"] and split_list("a(b,c") == ["a(b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "self_consistency(react",
            "opens a parenthesis and does not close it: write it as name\\(pattern\\):key=value",
        ),
        ("react)", "closes a parenthesis that it does not open"),
        ("self_consistency(react))", "closes a parenthesis"),
        ("self_consistency:samples=4(react)", "options follow the parentheses"),
        ("self_consistency(react,cot)", "leads one pattern and was given 2"),
        ("self_consistency()", "no pattern ''"),
        ("direct(cot)", "direct leads no other pattern: write direct alone"),
        ("self_consistency:pattern=react", "in parentheses: write self_consistency\\(react\\)"),
        ("route:patterns=react", "write route\\(react\\)"),
        ("self_consistency(reakt)", "no pattern 'reakt'; did you mean 'react'"),
        ("route(direct,cot:shot=1)", "cot has no option 'shot'; did you mean 'shots'"),
        ("parallel(" * 40 + "cot" + ")" * 40, "nests more than 16"),
        ("parallel:combine=most", "one of majority, any, all, threshold, best, merge was expected"),
    ],
)
def test_what_cannot_be_composed_is_said_in_one_sentence(text, message):
    with pytest.raises((ConfigError, UnknownName), match=message) as error:
        catalog.pattern(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_benchmark_is_not_composed():
    with pytest.raises(ConfigError, match="a benchmark leads no pattern"):
        catalog.benchmark("arithmetic(gsm8k)")


def test_a_composed_name_is_a_partial_that_knows_its_name():
    pattern, options = catalog.pattern("self_consistency(react:max_steps=3):samples=5")
    assert options == {"samples": 5}
    assert pattern.func is self_consistency and pattern.keywords["pattern"].keywords == {"max_steps": 3}
    assert pattern_name(pattern) == "self_consistency(react:max_steps=3)"
    inside = partial(parallel, pattern=partial(route, patterns=(direct, partial(react, native=True))), n=2)
    assert pattern_name(inside) == "parallel(route(direct,react:native=True)):n=2"
    assert pattern_name(partial(route, patterns={"sum": react, "talk": direct})) == "route(sum,talk)"
    body = Agent("a", Scripted(["x"]), self_consistency, {"pattern": react, "samples": 2}).to_json()
    assert (body["pattern"], body["options"]) == ("self_consistency", {"pattern": "react", "samples": 2})
    json.dumps(Agent("a", Scripted(["x"]), inside).to_json())


def test_the_command_line_and_toml_take_composed_names(tmp_path):
    words = ["arithmetic", "--pattern", "direct,route(direct,react:max_steps=2)"]
    assert parse(Config, words, prog="x").pattern == ("direct", "route(direct,react:max_steps=2)")
    file = tmp_path / "run.toml"
    file.write_text(
        'benchmarks = ["arithmetic"]\npattern = ["self_consistency(react):samples=3", "route(direct,cot)"]\n'
    )
    config = build(Config, read_toml(Config, file))
    assert config.pattern == ("self_consistency(react):samples=3", "route(direct,cot)")
    assert "'self_consistency(react):samples=3,route(direct,cot)'" in config.command()
    file.write_text('benchmarks = "arithmetic"\npattern = "route(direct,cot),cot"\n')
    assert build(Config, read_toml(Config, file)).pattern == ("route(direct,cot)", "cot")


def test_self_consistency_lets_any_pattern_vote_each_in_its_branch():
    replies = iter(["Action: calculator[3*4]", "Final Answer: 11", "Final Answer: 12", "Final Answer: 12.0"])
    trace = run(self_consistency, Scripted(lambda *_: next(replies)), pattern=react, samples=3)
    assert trace.answer == "12.0"
    assert sorted(branches(trace)) == [(f"sample {i}", status) for i in (1, 2, 3) for status in ("done", "open")]
    assert [event.data for event in trace.events if event.kind == "vote"] == [{"11": 1, "12": 2}]
    ends = [trace.nodes[event.data["at"]].message.text for event in trace.events if event.data.get("status") == "done"]
    assert sorted(ends) == ["Final Answer: 11", "Final Answer: 12", "Final Answer: 12.0"]
    paths = {event.data["name"]: event.data["path"] for event in trace.events if event.kind == "branch"}
    assert paths == {"sample 1": "0.0", "sample 2": "0.1", "sample 3": "0.2"}
    assert {call.id.partition(":")[0] for call in trace.calls} == set(paths.values())


def test_votes_count_only_what_a_task_can_use():
    choice = Task("2", "Which is soft?", choices=("rock", "wool"))
    replies = iter(["who knows", "B", "I cannot say", "A", "B"])
    trace = run(self_consistency, Scripted(lambda *_: next(replies)), task=choice, pattern=direct, samples=5)
    assert trace.answer == "B"
    assert trace.events[-1].kind == "vote" and trace.events[-1].data == {"B": 2, "A": 1, "(no answer)": 2}


def test_patterns_may_be_led_by_one_another_as_a_name_says():
    model = Scripted(
        {"Which of these": "x", "": "The answer is 12"}, score=lambda prompt, label: float(label == "react")
    )
    pattern, options = catalog.pattern("parallel(route(direct,react)):n=2")
    trace = run(pattern, model, **options)
    assert trace.answer == "12" and trace.agent["pattern"] == "parallel(route(direct,react))"
    assert ("react", "kept") in branches(trace) and ("direct", "pruned") in branches(trace)
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace


def test_a_failed_branch_is_an_outcome_and_a_users_mistake_is_not():
    async def broken(task, ctx):
        raise RuntimeError("boom")

    async def wrong(task, ctx):
        raise ConfigError("no")

    async def lead(task, ctx, *, pattern):
        outcome = await attempt_branch("one", pattern, task, ctx)
        return outcome.report

    trace = run(lead, Scripted(["x"]), pattern=broken)
    assert trace.answer == "failed: RuntimeError: boom" and branches(trace) == [("one", "open"), ("one", "failed")]
    assert run(lead, Scripted(["x"]), pattern=wrong).error.message == "no"
    assert run(lead, Scripted(error=ModelError("down")), pattern=direct).answer == "failed: down"
    assert run(lead, Scripted([" "]), pattern=cot).answer == "failed: it gave no answer"


def test_patterns_that_return_no_text_are_named():
    async def number(task, ctx):
        return 12

    trace = run(self_consistency, Scripted(["x"]), pattern=number, samples=1)
    assert trace.error.kind == "ConfigError" and "(int): its answer must be a str" in trace.error.message


@pytest.mark.parametrize(
    ("lead", "options"),
    [
        (self_consistency, {"samples": 2}),
        (parallel, {"n": 2}),
        (orchestrate, {}),
        (evaluator_optimizer, {}),
        (plan_execute, {}),
    ],
)
@pytest.mark.parametrize("led", [direct, cot, chain, react, self_consistency, route, parallel, plan_execute])
def test_every_leader_leads_every_pattern(lead, led, options):
    model = Scripted({"numbered list": "1. multiply 3 by 4\n2. check it", "": "The answer is 12"})
    trace = run(lead, model, pattern=led, **options)
    assert trace.stop_reason == "done" and trace.error is None and "12" in trace.answer
    said = branches(trace)
    ended = [name for name, status in said if status in ("done", "failed", "kept", "pruned")]
    assert said and {name for name, status in said if status == "open"} <= set(ended)


def test_critical_path_follows_the_longest_branch():
    model = Scripted({"numbered list": "1. a\n2. b", "": "The answer is 12"})
    trace = run(orchestrate, model, pattern=partial(cot, extract=True))
    assert len(trace.calls) == 6 and critical_calls(trace) == 4
    assert 0 < critical_seconds(trace) <= sum(call.duration_s for call in trace.calls)
    nested = run(partial(parallel, pattern=partial(parallel, pattern=direct, n=3), n=2), model)
    assert len(nested.calls) == 6 and critical_calls(nested) == 1
