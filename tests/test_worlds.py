"""The seam of worlds: rounds, invalid actions, endings, grammar, players."""

import asyncio
import json
from dataclasses import replace
from functools import partial

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.experiment.named_agents import open_tools
from firsthand.loop.budget import Limits
from firsthand.patterns.parts.actions import arguments_of, parse_action
from firsthand.patterns.plan_execute import plan_execute
from firsthand.patterns.react import _worked, react
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.thought_action import OVER, step_grammar, text_action, thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.database.database_world import DatabaseWorld, SqliteEngine
from firsthand.worlds.database.table_items import TableItem
from firsthand.worlds.outcomes import reason_of
from firsthand.worlds.players import play
from firsthand.worlds.shell.os_items import OsItem
from firsthand.worlds.shell.shell_world import ShellWorld
from firsthand.worlds.world import WorldEnvironment, _narrowed, failure_reason
from world_of_doors import Doors, doors


def attempt(*replies: str, task: int = 2, constrained: bool = False, **options: object) -> Trace:
    """The trace of a scripted agent at a task; the way out of task 2 is the blue door."""
    benchmark = doors(**options)  # type: ignore[arg-type]
    agent = Agent("a", Scripted(list(replies)), thought_action, {"constrained": constrained})
    return asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))


def test_an_attempt_ends_when_the_world_does_and_says_why():
    trace = attempt("Thought: red?\nAction: go red", "Action: go blue")
    assert trace.final_state == {
        "rounds": 2, "limit": 4, "invalid_actions": 0, "longest_loop": 1, "ended": "won", "result": {"out": True}
    }  # fmt: skip
    assert trace.value() == 1 and trace.stop_reason == "done" and trace.error is None
    assert trace.messages(len(trace.nodes) - 1)[-1].text == "Observation: You are out.\n[the task is over: won]"


def test_an_invalid_action_costs_a_round_is_counted_and_is_told_what_is_expected():
    trace = attempt("I do not know.", "Action: go pink", "Action: go blue")
    assert (trace.final_state["rounds"], trace.final_state["invalid_actions"]) == (3, 2)
    first, second, _ = (call.detail for call in trace.calls if call.kind == "tool")
    assert first["is_error"] and "write go red, go green or go blue" in first["result"]
    assert second["is_error"] and "there is no door 'pink'" in second["result"]


def test_the_rounds_end_an_attempt_and_not_one_earlier():
    trace = attempt(*["Action: go red"] * 4)
    assert trace.final_state["ended"] == "rounds" and trace.final_state["rounds"] == 4
    assert trace.value() == 0 and trace.error is None
    assert attempt(*["Action: go red"] * 3, "Action: go blue").final_state["ended"] == "won"


def test_reasons_of_failure_are_told_apart():
    assert attempt(*["Action: go red"] * 4).scores[0].detail["reason"] == "loop"
    assert attempt(*["Action: go red", "Action: go green"] * 2).scores[0].detail["reason"] == "limit"
    assert attempt("a", "b", "Action: go red", "Action: go green").scores[0].detail["reason"] == "invalid action"
    assert failure_reason({"rounds": 2, "ended": "answered", "longest_loop": 1, "invalid_actions": 0}) == "wrong end"
    assert failure_reason({"rounds": 0, "ended": "stopped", "longest_loop": 0, "invalid_actions": 0}) == "wrong end"


@pytest.mark.parametrize("text", ["go " + "x" * 100_000, "иди", "", "\x00\ud800", "go blue" * 30_000])
def test_any_text_is_answered_in_words(text: str):
    trace = attempt(f"Action: {text}", "Action: go blue")
    assert trace.final_state["invalid_actions"] == 1 and trace.value() == 1
    assert max(len(call.detail.get("result", "")) for call in trace.calls) < 500


class SlowDoors(Doors):
    """Doors that take a while."""

    async def go(self, door: str) -> str:
        """Go through a door."""
        await asyncio.sleep(0.05)
        return "It is locked."


@pytest.mark.slow
@pytest.mark.parametrize("limits", [Limits(tokens=40), Limits(calls=5), Limits(seconds=0.3)])
def test_tokens_calls_and_seconds_end_an_attempt_with_their_name_and_the_world_is_closed(limits: Limits):
    world = SlowDoors("blue", True)
    setting = replace(doors(), environment=lambda task: WorldEnvironment(world, rounds=500))
    agent = Agent("a", Scripted(["Action: go red"] * 500), thought_action, {"constrained": False}, limits=limits)
    trace = asyncio.run(rollout(agent, setting.tasks(0)[2], benchmark=setting))
    assert trace.stop_reason in limits.to_json() and trace.error is None and not world.is_open
    assert 1 <= trace.final_state["rounds"] < 50 and trace.final_state["ended"] == "stopped"
    assert failure_reason({**trace.final_state, "longest_loop": 1}, trace.stop_reason) == "limit"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["agentbench_hh:level=3", "agentbench_kg:level=2", "agentbench_ws:level=2", "agentbench_dcg", "office"]
)
def test_an_attempt_in_a_generated_world_is_replayed_to_the_byte(name: str):
    def attempt() -> str:
        benchmark = catalog.benchmark(name)
        trace = asyncio.run(play(benchmark, benchmark.tasks(4)[3], "random", seed=9))
        said = [node.message.to_json() for node in trace.nodes]
        return json.dumps([said, trace.final_state, [score.value for score in trace.scores]], sort_keys=True)

    assert attempt() == attempt()


def test_listed_actions_become_a_grammar_that_changes_nothing_when_it_is_off():
    benchmark = doors()
    model = Scripted(["Action: go red", "Action: go blue"])
    agent = Agent("a", model, thought_action, {"thought": False})
    trace = asyncio.run(rollout(agent, benchmark.tasks(0)[2], benchmark=benchmark))
    grammar = model.asked[0].sampling.grammar
    assert grammar is not None and '("go red" | "go green" | "go blue")' in grammar.source
    assert trace.value() == 1 and len(model.asked) == 2
    assert step_grammar({"type": "string"}) is None


def test_react_is_held_to_the_actions_that_are_possible_at_each_step():
    class Corridor(Doors):
        """Two doors in turn; a door that was opened is no longer listed."""

        opened: tuple[str, ...] = ()

        def admissible(self) -> list[str]:
            return [f"go {each}" for each in ("red", "blue") if each not in self.opened]

        async def go(self, door: str) -> str:
            """Go through a door."""
            self.opened += (door,)
            return "It leads on."

    model = Scripted(["Thought: on.\nAction: act[go red]", "Thought: on.\nAction: act[go blue]", "Final Answer: out"])
    setting = replace(doors(), environment=lambda task: WorldEnvironment(Corridor("none", True), rounds=4))
    agent = Agent("a", model, react, {"constrained": True})
    asyncio.run(rollout(agent, setting.tasks(0)[0], benchmark=setting))
    first, second = (asked.sampling.grammar.source for asked in model.asked[:2])  # type: ignore[union-attr]
    assert '("go red" | "go blue")' in first and '("go blue")' in second and "go red" not in second


def test_a_reply_outside_the_grammar_of_the_listed_actions_is_refused():
    trace = attempt("Action: go pink", constrained=True)
    assert trace.error is not None and "grammar" in trace.error.message


def test_a_form_becomes_a_grammar_too():
    grammar = step_grammar({"pattern": r"ask [a-z/]+"}, thought=False)
    assert grammar is not None and r"ACTION: /ask [a-z\/]+/" in grammar.source


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Thought: x\nAction: go blue", "go blue"),
        ("Think: x\n\nAct: bash\n\n```bash\nls\n```", "bash\n\n```bash\nls\n```"),
        ("go blue", "go blue"),
        ("Thought: x\ngo blue", "go blue"),
        ("**Action 3:** go blue", "go blue"),
        ("Thought: Action is near", ""),
        ("ACTION: one\nAction: two", "one\nAction: two"),
    ],
)
def test_the_action_is_read_out_of_the_text(text: str, action: str):
    assert text_action(text) == action


@pytest.mark.parametrize("actions", ["text", "native"])
def test_the_optimal_player_wins_every_task_by_text_and_by_native_calls(actions: str):
    benchmark = doors(actions=actions)  # type: ignore[arg-type]
    traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(0)]
    assert [trace.value() for trace in traces] == [1, 1, 1]
    assert all(trace.final_state["rounds"] == 1 for trace in traces)
    assert {call.detail["name"] for trace in traces for call in trace.calls if call.kind == "tool"} == {
        "act" if actions == "text" else "go"
    }


def test_the_random_player_is_repeatable_and_draws_admissible_actions_where_there_are_any():
    benchmark = doors()
    first, second = (asyncio.run(play(benchmark, benchmark.tasks(0)[0], "random", seed=5)) for _ in range(2))
    assert [node.message for node in first.nodes] == [node.message for node in second.nodes]
    assert first.final_state["invalid_actions"] == 0
    unlisted = doors(listed=False, rounds=60)
    traces = [asyncio.run(play(unlisted, unlisted.tasks(0)[0], "random", seed=seed)) for seed in range(8)]
    assert any(trace.final_state["invalid_actions"] for trace in traces)


def test_a_second_trial_and_the_steps_of_a_plan_go_on_in_the_world_and_stop_once_it_is_over():
    benchmark = doors(rounds=4)
    locked = benchmark.tasks(0)[2]

    def reply(messages, sampling, index):  # type: ignore[no-untyped-def]
        asked = messages[-1].text
        if "right or wrong" in asked:
            return "wrong"
        return "Try another door." if "went wrong" in asked else "Action: go red"

    options = {"pattern": partial(thought_action, thought=False, constrained=False, max_steps=3), "trials": 3}
    trace = asyncio.run(rollout(Agent("a", Scripted(reply), reflexion, options), locked, benchmark=benchmark))
    assert trace.error is None and trace.answer == OVER and trace.final_state["rounds"] == 4
    plan = iter(["1. Go through a door.\n2. Go through another.\n3. Rest."])
    planner = Scripted(lambda messages, sampling, index: next(plan, "Action: go red"))
    parts = {"pattern": options["pattern"], "max_steps": 3}
    trace = asyncio.run(rollout(Agent("b", planner, plan_execute, parts), locked, benchmark=benchmark))
    assert trace.error is None and trace.final_state["rounds"] == 4


def test_a_world_can_be_played_without_tools_of_the_agents_own():
    assert open_tools(("none",)) == () and [tool.name for tool in open_tools(("calculator",))] == ["calculator"]  # type: ignore[union-attr]


def test_a_pattern_for_worlds_says_what_it_needs():
    trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), thought_action), Task("t", "q")))
    assert trace.error is not None and "run it on a world" in trace.error.message
    with pytest.raises(ConfigError, match="give 1 round or more"):
        doors(rounds=0).environment(doors().tasks(0)[0])  # type: ignore[misc]


def test_an_agent_whose_own_steps_run_out_ended_by_a_limit():
    agent = Agent(
        "a", Scripted(["Action: go red", "Action: go green"]), thought_action, {"max_steps": 2, "constrained": False}
    )
    trace = asyncio.run(rollout(agent, doors().tasks(0)[2], benchmark=doors()))
    assert trace.final_state["ended"] == "stopped" and reason_of(trace) == "limit"
    assert reason_of(replace(trace, events=())) == "wrong end", "it stopped by itself"
    state = trace.final_state
    assert reason_of(replace(trace, final_state={**state, "ended": "answered"})) == "wrong end", "the world ended"
    assert reason_of(replace(trace, final_state={**state, "longest_loop": 3})) == "loop"


def test_a_move_that_is_json_itself_is_played_by_react_and_so_is_each_worked_example():
    game = catalog.benchmark("agentbench_dcg")
    moves = ['{"guess_type":  "spray", "target_position": 1}', '{"pick_fish": "spray", "action": "normal"}']
    said = [f"Thought: I see.\nAction: act[{move}]" for move in moves]
    agent = Agent("a", Scripted([*said, "Final Answer: done"]), react)
    trace = asyncio.run(rollout(agent, game.tasks(0)[0], benchmark=game))
    assert trace.final_state["rounds"] == 2 and trace.final_state["invalid_actions"] == 1, "the second has no target"
    assert "target_position" in [call.detail["result"] for call in trace.calls if call.kind == "tool"][1]
    worlds = [
        game.environment(game.tasks(0)[0]).world,  # type: ignore[misc, union-attr]
        ShellWorld(OsItem("x", "?", match="1")),
        DatabaseWorld(item := TableItem("other", "t", ("a",), (), ("1",)), SqliteEngine(item)),
    ]
    for world in worlds:
        environment = WorldEnvironment(world, rounds=1)
        shown = _narrowed(environment._tool(environment._act), None, None, world.examples)
        turns = [text for role, text in _worked(shown) if role == "assistant" and "Action:" in text]
        given = [arguments_of(shown, parse_action(text)[1]) for text in turns]
        assert given == [{"action": example} for example in world.examples], turns
        assert [world.read(example).name for example in world.examples] == [
            move.__name__ for move in world.moves[: len(turns)]
        ]
