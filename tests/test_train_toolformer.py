"""Toolformer: the filter by hand, the annotator on a tiny model, the pattern at decode time, and that it learns."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.agent import Agent
from firsthand.benchmarks.toy_ledgers import LIMIT, make_tasks, random_ledger, toy_ledgers
from firsthand.config import build
from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.patterns.toolformer import toolformer
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout, rollouts
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.tokens import pretrained
from firsthand.tokens.calls.inline_call import InlineCall, parse_inline_call, without_inline_calls
from firsthand.tool import tool
from firsthand.tools.calculator import calculator, evaluate
from firsthand.train.recipes.toolformer import Config
from firsthand.train.recipes.toy_bookkeeper import Config as BookkeeperConfig
from firsthand.train.recipes.toy_bookkeeper import base_text
from firsthand.train.toolformer.annotated_texts import reading_tools
from firsthand.train.toolformer.call_filter import (
    WEIGHTS_BY_DISTANCE,
    JudgedCall,
    ProposedCall,
    best_places,
    kept_calls,
    shuffled_results,
    weighted_loss,
    with_calls,
)
from firsthand.train.toolformer.call_proposals import executed
from firsthand.train.training_run import opened, read_metrics, stored_settings
from thorough import THOROUGH

torch.set_num_threads(1)
SUM = InlineCall("calculator", " 2 + 3")


def judged(text: int, place: int, without: float, unanswered: float, answered: float, result: str = "5") -> JudgedCall:
    return JudgedCall(ProposedCall(text, place, SUM, result), without, unanswered, answered)


def test_the_weights_are_those_of_the_paper() -> None:
    assert WEIGHTS_BY_DISTANCE.tolist() == pytest.approx([5 / 15, 4 / 15, 3 / 15, 2 / 15, 1 / 15])


def test_the_weighted_loss_by_hand() -> None:
    logprobs = np.array([0.0, -9.0, -1.0, -2.0, -3.0, -4.0, -5.0, -100.0])
    assert weighted_loss(logprobs, 2) == pytest.approx((5 * 1 + 4 * 2 + 3 * 3 + 2 * 4 + 1 * 5) / 15)
    assert weighted_loss(logprobs, 6) == pytest.approx((5 * 5 + 4 * 100) / 15)  # the text ends: nothing is rescaled
    assert weighted_loss(logprobs, 8) == 0


def test_a_call_must_beat_the_text_alone_and_the_call_without_its_result() -> None:
    assert judged(0, 1, 3.0, 2.0, 1.5).gain == pytest.approx(0.5)
    assert judged(0, 1, 2.0, 3.0, 1.5).gain == pytest.approx(0.5)
    at_threshold, below = judged(0, 1, 2.0, 3.0, 1.0), judged(1, 1, 2.0, 3.0, 1.001)
    assert kept_calls([at_threshold, below], threshold=1.0) == [at_threshold]


def test_the_best_call_of_a_place_is_kept_and_places_do_not_compete() -> None:
    small, large, equal = judged(0, 4, 3, 3, 1.5), judged(0, 4, 3, 3, 1.0), judged(0, 4, 3, 3, 1.0, "other")
    elsewhere, other_text = judged(0, 2, 3, 3, 2.0), judged(1, 4, 3, 3, 2.0)
    found = kept_calls([other_text, small, large, equal, elsewhere], threshold=0.5)
    assert found == [elsewhere, large, other_text] and found[1].proposed.result == "5"


def test_places_are_the_most_probable_above_the_threshold_and_never_the_first() -> None:
    probabilities = np.array([0.9, 0.2, 0.05, 0.4, 0.3, 0.1])
    assert best_places(probabilities, most=2, above=0.05) == [3, 4]
    assert best_places(probabilities, most=9, above=0.05) == [1, 3, 4, 5]  # above, not equal
    assert best_places(probabilities, most=9, above=0.0) == [1, 2, 3, 4, 5]


def test_shuffled_results_are_the_same_results_and_none_is_in_its_place() -> None:
    proposed = [ProposedCall(at, 1, SUM, f"r{at}") for at in range(20)]
    found = shuffled_results(proposed, seed=3)
    assert sorted(each.result for each in found) == sorted(each.result for each in proposed)
    assert all(each.result != f"r{each.text}" and each.call == SUM for each in found)
    assert found == shuffled_results(proposed, seed=3) != shuffled_results(proposed, seed=4)
    assert shuffled_results(proposed[:1], seed=0) == proposed[:1]


def test_calls_are_inserted_before_the_tokens_at_their_places() -> None:
    ids = np.arange(5, dtype=np.int32)
    assert with_calls(ids, {4: [9], 1: [7, 8]}).tolist() == [0, 7, 8, 1, 2, 3, 9, 4]
    assert with_calls(ids, {}).tolist() == ids.tolist() and with_calls(ids, {5: [6]}).tolist() == [*range(5), 6]


def test_a_call_is_written_and_read() -> None:
    assert SUM.written() == " [calculator( 2 + 3)]" and SUM.written("5") == " [calculator( 2 + 3) -> 5]"
    assert parse_inline_call("calculator( 2 + 3)") == SUM and parse_inline_call("f((1)) ") == InlineCall("f", "(1)")
    assert [parse_inline_call(text) for text in ("calculator", "1f(2)", "f(2", "f(2) x", "")] == [None] * 5
    text = f"left{SUM.written('5')} 5 and{SUM.written()} more [sic] a[0]"
    assert without_inline_calls(text) == "left 5 and more [sic] a[0]"


@tool(effect="read")
def odd(text: str) -> str:
    """Returns what cannot be written into a call."""
    return {"a": "x]", "b": "", "c": "1\n2", "d": "y" * 201, "e": " fine "}[text]


def test_only_results_that_can_be_written_are_results() -> None:
    tools = {"calculator": calculator, "odd": odd}
    calls = [
        SUM,
        *(InlineCall("odd", each) for each in "abcde"),
        InlineCall("none", "1"),
        InlineCall("calculator", "1/0"),
    ]
    found = [asyncio.run(executed(call, tools)) for call in calls]
    assert found == ["5", None, None, None, None, "fine", None, None]


def test_tools_that_do_more_than_read_are_refused(tmp_path: Path) -> None:
    assert set(reading_tools(["calculator"])) == {"calculator"}
    for given in ([f"files:{tmp_path}:write=true"], []):
        with pytest.raises(ConfigError, match=r"effect|tools is empty"):
            reading_tools(given)
    with pytest.raises(ConfigError, match=r"^'mcp:time' names MCP servers, which are opened for attempts, and here"):
        reading_tools(["mcp:time"])
    for settings in ({"places": 0}, {"samples": 65}, {"threshold": 0.0}, {"holdout": 0.0}, {"start_probability": 1.0}):
        with pytest.raises(ConfigError):
            build(Config, settings)


# -- the pattern --


def answer(model: Scripted, *, tools: Any = (calculator,), **options: Any) -> Any:
    task = Task("1", "unused", context="tom has 2 gets 3 left")
    return asyncio.run(rollout(Agent("a", model, toolformer, options, tools, Sampling(max_tokens=20)), task))


def test_a_call_is_executed_and_the_model_goes_on_after_its_result() -> None:
    model = Scripted([" [calculator( 2 + 3)", " 5"])
    trace = answer(model)
    assert trace.error is None and trace.answer == "5"
    assert [request.prompt for request in model.asked] == [
        "tom has 2 gets 3 left",
        "tom has 2 gets 3 left [calculator( 2 + 3) -> 5]",
    ]
    assert [call.kind for call in trace.calls] == ["generate", "tool", "generate"]


def test_a_text_without_a_call_is_the_answer_and_a_failed_call_has_no_result() -> None:
    assert answer(Scripted([" 7"])).answer == "7"
    for call, tools in (("calculator( 2 +)", (calculator,)), ("search(x)", (calculator,)), ("calculator(1)", ())):
        model = Scripted([f" [{call}", " 6"])
        assert answer(model, tools=tools).answer == "6"
        assert model.asked[-1].prompt == f"tom has 2 gets 3 left [{call}]"


def test_no_more_calls_are_made_than_allowed() -> None:
    model = Scripted([" [calculator(1 + 1)", " [calculator(2 + 2)", " 4 [calculator(9 * 9) -> 1]"])
    trace = answer(model, max_calls=2)
    assert trace.answer == "4" and sum(call.kind == "tool" for call in trace.calls) == 2
    assert model.asked[-1].prompt.endswith("left [calculator(1 + 1) -> 2] [calculator(2 + 2) -> 4]")
    model = Scripted([" [calculator(1 + 1) -> 3] 3"])
    assert answer(model, max_calls=0).answer == "3" and len(model.asked) == 1
    for options in ({"max_calls": -1}, {"top_k": 0}, {"top_k": 101}):
        with pytest.raises(ConfigError):
            answer(Scripted([" 1"]), **options)


# -- the toy --


def test_ledgers_follow_from_their_calls() -> None:
    rng = Random(0)
    for _ in range(200):
        ledger = random_ledger(rng)
        assert (
            evaluate(ledger.call) == ledger.left
            and 0 <= ledger.left < LIMIT
            and ledger.text.endswith(f" {ledger.left}")
        )
        assert ("gets" in ledger.text) == ("+" in ledger.call)
    assert make_tasks(1, 5) == make_tasks(1, 5) != make_tasks(2, 5)
    with pytest.raises(ConfigError):
        toy_ledgers(tasks=0)


def test_the_base_texts_show_the_form_of_calls_and_no_result_of_one() -> None:
    texts = [base_text(Random(seed), BookkeeperConfig()) for seed in range(400)]
    called = [text for text in texts if "calculator(" in text]
    assert 60 < len(called) < 140 and not any("->" in text for text in called)
    assert all(text.index(" [") > text.index("ses" if "loses" in text else "gets") for text in called)
    right = sum(any(f"( {random_call})" in text for random_call in _right_calls(text)) for text in called)
    assert 0.1 < right / len(called) < 0.6  # numbers and operator are at chance


def _right_calls(text: str) -> list[str]:
    words = without_inline_calls(text).split()
    sign = "+" if words[3] == "gets" else "-"
    return [f"{words[2]} {sign} {words[4]}", *([f"{words[4]} + {words[2]}"] if sign == "+" else [])]


# -- the recipe --


def trained(recipe: str, out: Path, *, resume: bool = False, **settings: Any) -> list[dict[str, float]]:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, settings)
    with opened(out, recipe, config, resume=resume) as run:
        getattr(module, recipe)(config, run)
    return read_metrics(out)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that has seen little: it writes calls, and uses none."""
    place = tmp_path_factory.mktemp("base") / "run"
    trained("toy_bookkeeper", place, steps=25, batch_size=24, texts=30, calls=0.7, copies=0, notes=0.1)
    return place


SETTINGS = {
    "places": 2, "samples": 3, "start_probability": 0.0, "batch_size": 4, "lr": 1e-3, "eval_every": 2, "checkpoint_every": 1,
}  # fmt: skip


@pytest.mark.slow
def test_every_judged_call_is_written_down_with_losses_that_a_forward_pass_gives(base: Path, tmp_path: Path) -> None:
    from firsthand.nn import weights
    from firsthand.train.stream_logprobs import stream_logprobs

    model = str(base / "model")
    data = str(base / "ledgers.jsonl")
    rows = trained("toolformer", tmp_path / "run", data=data, model=model, threshold=1e-3, steps=2, **SETTINGS)
    assert {"held_out_loss", "held_out_loss_with_calls", "held_out_call_rate"} <= rows[-1].keys()
    first = rows[0]
    assert (
        first["step"] == 0 and first["sampled"] == 3 * first["places"] >= first["well_formed"] >= first["executed"] > 0
    )
    head, *calls = [json.loads(line) for line in (tmp_path / "run" / "calls.jsonl").read_text().splitlines()]
    assert (
        "data" in head and len(calls) == first["executed"] and sum(call["kept"] for call in calls) == first["kept"] > 0
    )
    tokenizer = pretrained.load(Path(model))
    texts = [json.loads(line)["text"] for line in Path(data).read_text().splitlines()]
    call = calls[-1]
    written = InlineCall(call["tool"], call["input"])
    assert str(evaluate(call["input"])) == call["result"]
    from firsthand.train.data_order import split

    ids = [*tokenizer.encode(split(texts, 0.1, seed=0)[0][call["text"]]), tokenizer.eos_id]
    prefixes = {"without": [], "unanswered": tokenizer.encode(written.written())}
    prefixes["answered"] = tokenizer.encode(written.written(call["result"]))
    for name, prefix in prefixes.items():
        (found,) = stream_logprobs(weights.load(Path(model)), [np.array([*prefix, *ids], np.int32)])
        assert weighted_loss(found.logprobs, len(prefix) + call["place"]) == pytest.approx(
            call["losses"][name], abs=1e-4
        )


@pytest.mark.slow
def test_a_resumed_run_has_the_same_calls_and_the_same_bits(base: Path, tmp_path: Path) -> None:
    given = {"data": str(base / "ledgers.jsonl"), "model": str(base / "model"), "threshold": 1e-3, **SETTINGS}
    trained("toolformer", tmp_path / "whole", steps=4, **given)
    trained("toolformer", tmp_path / "parts", steps=2, **given)
    before = (tmp_path / "parts" / "calls.jsonl").read_bytes()
    trained("toolformer", tmp_path / "parts", resume=True, steps=4, **given)
    assert (
        (tmp_path / "parts" / "calls.jsonl").read_bytes() == before == (tmp_path / "whole" / "calls.jsonl").read_bytes()
    )
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert stored_settings(tmp_path / "parts")[0] == "toolformer"
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": random_ledger(Random(at)).text}) + "\n" for at in range(30)))
    with pytest.raises(DataError, match="the texts are not those"):
        trained("toolformer", tmp_path / "parts", resume=True, steps=5, **given | {"data": str(other)})


@pytest.mark.slow
def test_bad_texts_and_too_high_a_threshold_are_one_sentence(base: Path, tmp_path: Path) -> None:
    given = {"data": str(base / "ledgers.jsonl"), "model": str(base / "model"), **SETTINGS}
    with pytest.raises(TrainingError, match=r"none of .* calls lowers the loss by 50"):
        trained("toolformer", tmp_path / "none", steps=1, threshold=50.0, **given)
    (tmp_path / "bad.jsonl").write_text('{"texts": 1}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        trained("toolformer", tmp_path / "bad", steps=1, **given | {"data": str(tmp_path / "bad.jsonl")})
    with pytest.raises(ConfigError, match="give a JSONL file"):
        trained("toolformer", tmp_path / "nothing", steps=1, **given | {"data": ""})


@pytest.mark.skipif(not THOROUGH, reason="FIRSTHAND_THOROUGH alone runs it: docs/toolformer.md trains a smaller one")
@pytest.mark.slow
def test_a_model_learns_to_call_where_it_helps_and_shuffled_results_are_not_kept(tmp_path: Path) -> None:
    trained("toy_bookkeeper", tmp_path / "base", texts=1500, steps=600)
    given = {
        "data": str(tmp_path / "base" / "ledgers.jsonl"), "model": str(tmp_path / "base" / "model"), "places": 2,
        "samples": 4, "threshold": 0.5, "batch_size": 64, "lr": 1e-3, "eval_every": 50, "checkpoint_every": 0,
    }  # fmt: skip
    rows = trained("toolformer", tmp_path / "caller", steps=100, **given)
    some = tmp_path / "some.jsonl"
    some.write_text("".join(Path(given["data"]).read_text().splitlines(keepends=True)[:400]))
    control = trained("toolformer", tmp_path / "control", steps=1, corrupt=True, **given | {"data": str(some)})
    kept, by_chance = (row["kept"] / row["executed"] for row in (rows[0], control[0]))
    assert kept > 0.1 > 4 * by_chance
    assert (
        rows[-1]["held_out_loss_with_calls"] < 0.95 * rows[0]["held_out_loss"] and rows[0]["held_out_call_rate"] < 0.1
    )
    from firsthand.providers.local import Local
    from firsthand.rollout import Place

    model, benchmark = Local(tmp_path / "caller" / "model"), toy_ledgers(tasks=100)
    agent = Agent("a", model, toolformer, {}, (calculator,), Sampling(max_tokens=24))

    async def made() -> list[Any]:
        places = [Place(agent, benchmark, task, 0) for task in benchmark.tasks(7)]
        return [trace async for trace in rollouts(places, seed=0, concurrency=32)]

    traces = asyncio.run(made())
    model.close()
    assert sum(any(call.kind == "tool" for call in trace.calls) for trace in traces) >= 90
