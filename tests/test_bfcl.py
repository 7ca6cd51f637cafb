"""BFCL: calls as tools and as text, held to the accepted ones; what odd and hostile outputs get."""

import asyncio
import json
import os
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.bfcl import SYSTEM
from firsthand.errors import DataError
from firsthand.message import Message, Text, ToolCall, assistant, system
from firsthand.patterns.direct import direct
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.scorers.function_calls import MadeCall, function_calls, leaderboard_calls, mismatch, read_calls
from firsthand.task import Task
from firsthand.trace import Trace

DATA = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "agents" / "bfcl"
needs_data = pytest.mark.skipif(not (DATA / "BFCL_v4_parallel.json").is_file(), reason="BFCL's files are not here")
PLAY = {
    "name": "music.play",
    "description": "Play a song.",
    "parameters": {
        "type": "dict",
        "properties": {
            "artist": {"type": "string", "description": "Who."},
            "minutes": {"type": "float", "description": "How long."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "dict", "properties": {"room": {"type": "string"}, "loud": {"type": "boolean"}}},
        },
        "required": ["artist"],
    },
}
ACCEPTED = {
    "artist": ["Maroon 5", "Maroon Five"],
    "minutes": ["", 15],
    "tags": ["", ["pop", "rock"]],
    "at": ["", {"room": ["hall"], "loud": [True, ""]}],
}


def row(**changes):
    return {
        "id": "simple_python_0",
        "question": [[{"role": "user", "content": "Play Maroon 5."}]],
        "function": [PLAY],
    } | changes


def benchmark(tmp_path, rows, truths, category="simple_python", protocol=""):
    (tmp_path / "possible_answer").mkdir(exist_ok=True)
    name = f"BFCL_v4_{category}.json"
    (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in rows))
    (tmp_path / "possible_answer" / name).write_text(
        "".join(json.dumps({"id": "x", "ground_truth": each}) + "\n" for each in truths)
    )
    return catalog.benchmark(f"bfcl{protocol}:data={tmp_path}")


def scored(bench, reply, pattern=direct, **options):
    model = Scripted(reply if isinstance(reply, list) else [reply])
    trace = asyncio.run(rollout(Agent("a", model, pattern, options=options), bench.tasks(0)[0], benchmark=bench))
    assert trace.error is None, trace.error
    return trace.scores[0], model, trace


def test_functions_are_real_tools_and_their_calls_are_scored_and_not_run(tmp_path):
    bench = benchmark(tmp_path, [row()], [[{"music.play": ACCEPTED}]])
    call = ToolCall("1", "music_play", {"artist": "maroon 5", "minutes": 15})
    score, model, trace = scored(bench, assistant("", call))
    assert score.value == 1.0 and trace.answer == '[{"music_play": {"artist": "maroon 5", "minutes": 15}}]'
    assert [each.kind for each in trace.calls] == ["generate"]
    (spec,) = model.asked[0].tools
    assert (
        spec.name == "music_play"
        and spec.description == "Play a song. Note that the provided function is in Python 3 syntax."
    )
    assert spec.parameters["type"] == "object" and spec.parameters["properties"]["minutes"]["type"] == "number"
    assert spec.parameters["properties"]["at"]["type"] == "object"
    assert "Maroon" not in json.dumps(bench.tasks(0)[0].public().to_json()).replace("Play Maroon 5.", "")


def test_in_the_text_protocol_the_functions_stand_in_the_system_message(tmp_path):
    own = row(question=[[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Play Maroon 5."}]])
    bench = benchmark(tmp_path, [own], [[{"music.play": ACCEPTED}]], protocol="@prompt")
    score, model, _ = scored(bench, "[music.play(artist='Maroon Five')]")
    assert score.value == 1.0 and not model.asked[0].tools
    opening, asked = model.asked[0].prompt
    hinted = {**PLAY, "description": PLAY["description"] + " Note that the provided function is in Python 3 syntax."}
    assert opening.role == "system" and opening.text == SYSTEM + json.dumps([hinted], indent=4) + "\n\n\nBe kind."
    assert asked.text == "Play Maroon 5."
    assert scored(bench, "[music_play(artist='Maroon 5')]")[0].value == 0.0  # the name is the function's own here


def test_a_pattern_that_runs_tools_is_told_that_the_call_was_noted(tmp_path):
    bench = benchmark(tmp_path, [row()], [[{"music.play": ACCEPTED}]])
    replies = [assistant("", ToolCall("1", "music_play", {"artist": "Maroon 5"})), "Done."]
    _, model, trace = scored(bench, replies, react, native=True)
    assert "The call was noted." in model.asked[1].prompt[-1].text and trace.stop_reason == "done"


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"artist": "Maroon 5"}, True),
        ({"artist": "MAROON-5,"}, True),
        ({"artist": "Maroon 6"}, False),
        ({"artist": 5}, False),
        ({"artist": None}, False),
        ({}, False),
        ({"artist": "Maroon 5", "minutes": 15}, True),
        ({"artist": "Maroon 5", "minutes": 15.0}, True),
        ({"artist": "Maroon 5", "minutes": "15"}, False),
        ({"artist": "Maroon 5", "minutes": True}, False),
        ({"artist": "Maroon 5", "minutes": 10**400}, False),
        ({"artist": "Maroon 5", "tags": ["Pop", "rock"]}, True),
        ({"artist": "Maroon 5", "tags": ["rock", "pop"]}, False),
        ({"artist": "Maroon 5", "tags": []}, True),  # as in the leaderboard: an accepted "" is an empty list too
        ({"artist": "Maroon 5", "tags": [1]}, False),
        ({"artist": "Maroon 5", "tags": "pop"}, False),
        ({"artist": "Maroon 5", "at": {"room": "Hall"}}, True),
        ({"artist": "Maroon 5", "at": {"room": "hall", "loud": True}}, True),
        ({"artist": "Maroon 5", "at": {"loud": True}}, False),
        ({"artist": "Maroon 5", "at": {"room": "hall", "x": 1}}, False),
        ({"artist": "Maroon 5", "at": {"room": {"room": []}}}, False),
        ({"artist": "Maroon 5", "volume": 3}, False),
    ],
)
def test_the_arguments_that_are_accepted(arguments, right):
    assert (mismatch([MadeCall("music.play", arguments)], [PLAY], [{"music.play": ACCEPTED}]) == "") is right


def test_several_calls_are_right_in_any_order_and_none_may_be_missing_or_more():
    truth = [{"music.play": {"artist": ["A"]}}, {"music.play": {"artist": ["B"]}}]
    a, b = (MadeCall("music.play", {"artist": name}) for name in "AB")
    assert mismatch([a, b], [PLAY], truth) == mismatch([b, a], [PLAY], truth) == ""
    assert mismatch([a], [PLAY], truth) == "1 calls were made, and 2 expected"
    assert "3 calls" in mismatch([a, b, b], [PLAY], truth)
    assert "'B' of music.play is not among" in mismatch([b, b], [PLAY], truth) and mismatch([], [PLAY], truth)


def test_calls_that_are_right_for_several_expected_ones_are_paired_in_any_order_but_on_the_leaderboard():
    a, b, c = (MadeCall("music.play", {"artist": name}) for name in "ABC")
    truth = [{"music.play": {"artist": list(names)}} for names in ("AB", "AC", "A")]
    orders = list(permutations([a, b, c]))
    assert all(mismatch(order, [PLAY], wanted) == "" for order in orders for wanted in permutations(truth))
    assert [mismatch(order, [PLAY], truth, published=True) == "" for order in orders].count(True) == 3 - 1
    made = [MadeCall("music.play", {"artist": name}) for name in "ABCD"]
    chained = [{"music.play": {"artist": list(names)}} for names in ("CD", "AB", "AC", "A")]  # a call is moved twice
    assert mismatch(made, [PLAY], chained) == ""
    told = "artist='B' of music.play is not among ['A']"
    assert mismatch([b, b], [PLAY], [truth[0], truth[2]]) == told
    assert mismatch([a, b], [PLAY], [truth[0], truth[2]], published=True) == told
    task = Task("t", "Play.", secret={"calls": {"kind": "calls", "functions": [PLAY], "accepted": truth[::2]}})
    trace = Trace("t", "b", "t", {}, 0, 0, "", 0.0, answer="[music.play(artist='A'), music.play(artist='B')]")
    assert (function_calls(task, trace).value, leaderboard_calls(task, trace).value) == (1.0, 0.0)


@given(st.lists(st.sets(st.sampled_from("ABCDE"), min_size=1), min_size=1, max_size=5), st.data())
def test_calls_are_right_exactly_if_some_pairing_is(wanted, data):
    names = data.draw(st.lists(st.sampled_from("ABCDE"), min_size=len(wanted), max_size=len(wanted)))
    made = [MadeCall("music.play", {"artist": name}) for name in names]
    truth = [{"music.play": {"artist": sorted(each)}} for each in wanted]
    right = any(all(name in each for name, each in zip(order, wanted, strict=True)) for order in permutations(names))
    assert (mismatch(made, [PLAY], truth) == "") == right


def test_where_no_function_fits_no_call_is_right(tmp_path):
    path = tmp_path / "BFCL_v4_irrelevance.json"
    path.write_text(
        json.dumps(row()) + "\n" + json.dumps(row(id="x", function=[])) + "\n"
    )  # with no function at all too
    native, text = (catalog.benchmark(f"bfcl{each}:data={tmp_path}") for each in ("", "@prompt"))
    call = ToolCall("1", "music_play", {"artist": "Maroon 5"})
    assert scored(native, "None of these can do that.")[0].value == 1.0
    assert scored(native, assistant("", call))[0].value == 0.0
    for answer, value in (
        ("None of these fits.", 1.0),
        ("[]", 1.0),
        ("[music.play(artist='x')]", 0.0),
        ("[anything()]", 0.0),
    ):
        assert scored(text, answer)[0].value == value, answer


def test_arguments_that_are_no_json_are_no_call(tmp_path):
    bench = benchmark(tmp_path, [row()], [[{"music.play": ACCEPTED}]])
    broken = Message("assistant", (Text("x"), ToolCall("1", "music_play", {}, invalid='{"artist": "Maroon')))
    score = scored(bench, broken)[0]
    assert score.value == 0.0 and "are not JSON" in score.detail["reason"]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f(x=1)]", [("f", {"x": 1})]),
        ("```\n[f(x=-1.5)]\n```", [("f", {"x": -1.5})]),
        ("a.b.f(x=[1, (2, 3)], y={'k': None}), g()", [("a.b.f", {"x": [1, (2, 3)], "y": {"k": None}}), ("g", {})]),
        ("[f(x=2*3, y=10/2, z=7//2)]", [("f", {"x": 6, "y": 5.0, "z": 3})]),
        ("[f(x=name, y=true, z=d['a'])]", [("f", {"x": "name", "y": "true", "z": "d['a']"})]),
        ("[f(1, x=g(), y=g(z=1))]", [("f", {"x": "g()", "y": {"g": {"z": 1}}})]),
        ("[]", []),
        ("", []),
        ("[f(x=1, x=2)]", [("f", {"x": 2})]),
        ("[f(x=__import__('os').system('ls'))]", [("f", {"x": "__import__('os').system('ls')"})]),  # text, never run
    ],
)
def test_calls_in_a_text_are_read(text, calls):
    assert read_calls(text) == ([MadeCall(*each) for each in calls], "")


@pytest.mark.parametrize(
    "text",
    [
        *("Sorry, no.", "[x]", "[f(x=1), 3]", "[f(**k)]", "[f(x={**k})]", "[f(x=[i for i in y])]", "[f(x=lambda: 1)]"),
        *("[f(x=f'{a}')]", "[f(x=not True)]", "[f(x={[]: 1})]"),
        *("[f(x=9**9**9**9)]", "[f(x=1/0)]", "[f(x='a'*10**9)]", "[f(x=" + "(" * 5000 + ")]", "[f(x=" + "-" * 5000 + "1)]"),
        *("[f(x=1)" + "\0]", "[f(x=\ud800)]", "x" * 200_000, "[f(x=" + "9" * 5000 + ")]", "<tool_call>{}</tool_call>"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_calls_is_told_and_never_run(text):
    calls, why = read_calls(text)
    assert calls == [] and why


@pytest.mark.parametrize(
    ("changes", "truth", "words"),
    [
        ({"question": []}, [{"music.play": ACCEPTED}], "not a list of one list of messages"),
        ({"function": {}}, [{"music.play": ACCEPTED}], "not a list of functions"),
        ({"function": []}, [{"music.play": ACCEPTED}], "not of an offered function"),
        ({"function": [{"name": "f"}]}, [{"music.play": ACCEPTED}], "no parameters with properties"),
        ({"function": [{**PLAY, "name": "f()"}]}, [{"f()": {}}], "is named"),
        ({"function": [PLAY, {**PLAY, "name": "music_play"}]}, [{"music.play": {}}], "the same name"),
        (
            {"function": [{**PLAY, "parameters": {"properties": {"x": {"type": "HashMap"}}}}]},
            [{"music.play": {}}],
            "has no type",
        ),
        (
            {"function": [{**PLAY, "parameters": {"properties": {"x": {"type": "array"}}}}]},
            [{"music.play": {}}],
            "has no type",
        ),
        ({}, [{"other": {}}], "not of an offered function"),
        ({}, [{"music.play": {"artist": "x"}}], "an accepted call"),
        ({}, [], "not a list of calls"),
    ],
)
def test_a_row_that_cannot_be_asked_or_judged_is_refused_with_its_line(tmp_path, changes, truth, words):
    with pytest.raises(DataError, match=words) as refused:
        benchmark(tmp_path, [row(), row(**changes)], [[{"music.play": ACCEPTED}], truth])
    assert "line 2" in str(refused.value)


def test_answers_that_are_missing_or_too_few_are_refused(tmp_path):
    with pytest.raises(DataError, match="has 1 rows, and"):
        benchmark(tmp_path, [row(), row()], [[{"music.play": ACCEPTED}]])
    (tmp_path / "possible_answer" / "BFCL_v4_simple_python.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        catalog.benchmark(f"bfcl:data={tmp_path}")
    with pytest.raises(DataError, match="pip install --no-deps bfcl-eval"):
        catalog.benchmark(f"bfcl:data={tmp_path / 'possible_answer'}")
    with pytest.raises(DataError, match="no BFCL_v4_live_simple"):
        catalog.benchmark(f"bfcl:category=live_simple:data={tmp_path}")


def test_a_task_of_another_benchmark_is_an_error():
    trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), direct), Task("t", "Q")))
    with pytest.raises(DataError, match="expects no calls"):
        function_calls(Task("t", "Q"), trace)


def test_a_task_keeps_its_system_message_and_its_calls_on_disk():
    task = Task("t", "Q", conversation=(system("S"),), calls=True)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert not {"conversation", "calls"} & Task("t", "Q").to_json().keys()


@pytest.mark.slow
@needs_data
def test_the_real_answers_are_right_but_for_four_that_the_leaderboard_refuses_too():
    """Golden against bfcl-eval 2026.3.23: the first accepted value of each argument, as it stands in the files."""
    tasks = catalog.benchmark(f"bfcl@prompt:data={DATA}").tasks(0)
    assert len(tasks) == 1498 and len({task.id for task in tasks}) == 1498
    refused = []
    for task in tasks:
        expected = task.secret["calls"]
        made = []
        for each in expected["accepted"]:
            ((name, values),) = each.items()
            made.append(
                MadeCall(
                    name, {key: first(accepted) for key, accepted in values.items() if first(accepted) is not None}
                )
            )
        if expected["kind"] == "calls" and mismatch(made, expected["functions"], expected["accepted"]):
            refused.append(task.id)
    assert refused == ["parallel_multiple_12", "parallel_multiple_26", "live_simple_106-63-0", "live_simple_112-68-0"]


def first(accepted):
    value = next((each for each in accepted if each != ""), None)
    if isinstance(value, dict):
        return {key: first(each) for key, each in value.items() if "" not in each}
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return [{key: first(each) for key, each in entry.items() if "" not in each} for entry in value]
    return value


@pytest.mark.parametrize("answers", [1, 3])
def test_as_many_answers_as_questions_are_wanted(tmp_path, answers):
    with pytest.raises(DataError, match=rf"has {answers} rows, and BFCL_v4_simple_python.json 2: fetch both again"):
        benchmark(tmp_path, [row(), row(id="x")], [[{"music.play": ACCEPTED}]] * answers)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        f"f(x=0x{'f' * 20_000})",
        "f(x={(1, 2): 3})",
        "f(x=b'a')",
        "f(x=1j)",
        "f(x={1: 2, '1': 3})",
        f"f(x={'[' * 190}{']' * 190})",
    ],
)
def test_calls_of_any_value_are_stored_and_end_no_run(answer, tmp_path):
    task = Task("t", "p", secret={"calls": {"kind": "some", "functions": [], "accepted": []}})
    setting = Benchmark(name="b", tasks=lambda seed: [task], scorers=(function_calls,))
    run = create(tmp_path, {}, "x")
    asyncio.run(execute(run, [Place(Agent("a", Scripted([answer]), direct), setting, task)]))
    (trace,) = run.traces()
    assert trace.scores[0].failure is None and trace.scores[0].value == float("0x" not in answer)
