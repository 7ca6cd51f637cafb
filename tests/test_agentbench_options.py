"""AgentBench's environments as benchmarks: what each says of itself, its options at their limits, and its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmarks import agentbench
from firsthand.benchmarks.agentbench_db import INSTRUCTIONS, agentbench_db, solved
from firsthand.benchmarks.agentbench_hh import agentbench_hh
from firsthand.benchmarks.agentbench_kg import agentbench_kg
from firsthand.benchmarks.agentbench_ltp import agentbench_ltp, progress
from firsthand.benchmarks.agentbench_os import _folder, agentbench_os, passed
from firsthand.benchmarks.agentbench_wb import element_chosen, errand_share, step_success
from firsthand.benchmarks.agentbench_ws import shop_reward, shop_success
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.message import assistant, user
from firsthand.task import Task
from firsthand.trace import Score, Trace
from test_agentbench_ltp import ROW, STORY, workbook

GENERATED = "none needed: generated"


def ended(result: Any, answer: str | None = None, **more: Any) -> Trace:
    """An attempt whose world ended with this result."""
    state = {"rounds": 4, "invalid_actions": 1, "longest_loop": 2, "ended": "answered", "result": result, **more}
    return Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer, final_state=state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "protocol", "options", "first"),
    [
        ("hh:level=3:tasks=2:rounds=1:explain=true:actions=native",
         "generated, version 1, level 3; 1 round; success is the goal at the end; native actions; refusals are explained",
         {"level": 3, "tasks": 2, "rounds": 1, "actions": "native", "version": 1}, "seed5-level3-0001"),
        ("wb:level=1:tasks=2:rounds=7", "generated, version 1, level 1; 7 rounds; what was sent is compared; text actions",
         {"level": 1, "tasks": 2, "rounds": 7, "actions": "text", "version": 1}, "seed5-level1-0001"),
        ("ws:level=3:tasks=2:rounds=1:actions=native",
         "generated, version 1, level 3; 1 round; WebShop's reward; native actions",
         {"level": 3, "tasks": 2, "rounds": 1, "actions": "native", "version": 1}, "seed5-level3-0001"),
        ("kg:tasks=2:rounds=9:level=1:about=book.book",
         "generated, version 2, level 1, about book.book; 9 rounds; F1 of the answer's entities; text actions",
         {"split": "generated", "level": 1, "about": "book.book", "tasks": 2, "rounds": 9, "actions": "text"},
         "seed5-level1-book.book-0001"),
        ("dcg:rounds=9:split=dev:actions=native",
         "version 1, generated: 12 games by the paper's rules for its four fish, the enemy's order from the seed (the "
         "paper's is fixed); native actions; 9 rounds; reward 0.7 for a win and 0.3 times the share of damage dealt, as in "
         "the paper",
         {"version": 1, "split": "dev", "actions": "native", "rounds": 9}, "seed5-baseline1-first-1"),
    ],
)  # fmt: skip
def test_a_generated_environment_says_what_it_is(spec: str, protocol: str, options: Any, first: str) -> None:
    made = catalog.benchmark(f"agentbench_{spec}")
    assert (made.protocol, made.options) == (protocol, options) and made.licence.startswith(GENERATED)
    tasks = made.tasks(5)
    assert len(tasks) == options.get("tasks", 12) and tasks[1].id == first
    assert tasks[1].to_json() == made.tasks(5)[1].to_json() != tasks[0].to_json()
    assert tasks[0].to_json() != made.tasks(6)[0].to_json()
    assert made.environment is not None
    world: Any = made.environment(tasks[1])
    assert (world.limit, world.actions) == (options["rounds"], options["actions"])


def test_options_are_refused_beyond_their_limits_and_taken_at_them() -> None:
    for name, most in (("hh", 100_000), ("wb", 10_000), ("ws", 10_000), ("kg", 10_000)):
        assert catalog.benchmark(f"agentbench_{name}:tasks={most}").options["tasks"] == most
        for wrong in (f"tasks={most + 1}", "tasks=0", "level=0", "level=4"):
            with pytest.raises(ConfigError, match=r"give .*level 1 to 3"):
                catalog.benchmark(f"agentbench_{name}:{wrong}")
    with pytest.raises(ConfigError, match=r"about is 'x': give one of .* at level 2, with generated questions"):
        catalog.benchmark("agentbench_kg:about=x")
    first = ("film.film", "people.person", "location.citytown", "sports.sports_team", "book.book")
    every = (*first[:2], "film.film_genre", first[2], "location.country", *first[3:])
    for level, kinds in ((1, first), (2, every), (3, every)):
        for kind in kinds:
            assert agentbench_kg(level=level, about=kind).options["about"] == kind
        for wrong in {*every, "x"} - {*kinds}:
            with pytest.raises(ConfigError) as told:
                agentbench_kg(level=level, about=wrong)
            assert str(told.value) == (
                f"about is {wrong!r}: give one of {', '.join(kinds)} at level {level}, with generated questions"
            )
    with pytest.raises(
        ConfigError, match=r"about is 'book\.book': give one of .* at level 2, with generated questions"
    ):
        agentbench_kg(split="dev", about="book.book")
    with pytest.raises(ConfigError, match="graph and data are for the paper's questions"):
        catalog.benchmark("agentbench_kg:graph=x")
    with pytest.raises(ConfigError, match=r"level is 2, tasks 60 and lists 'x'"):
        agentbench_hh(lists="x")


def test_games_of_alfworld_are_those_of_a_split_or_of_a_list(tmp_path: Path) -> None:
    with pytest.raises(DataError) as none:
        agentbench_hh(data=str(tmp_path))
    assert str(none.value).startswith(
        f"there is no game.tw-pddl in {tmp_path}/json_2.1.1/valid_unseen: fill {tmp_path} by"
    )
    for place in ("b/2", "b/1", "a/9"):
        (tmp_path / "json_2.1.1" / "valid_unseen" / place).mkdir(parents=True)
        (tmp_path / "json_2.1.1" / "valid_unseen" / place / "game.tw-pddl").write_text("{}")
    (tmp_path / "json_2.1.1" / "valid_seen" / "a" / "1").mkdir(parents=True)
    (tmp_path / "json_2.1.1" / "valid_seen" / "a" / "1" / "game.tw-pddl").write_text("{}")
    made = agentbench_hh(data=str(tmp_path), rounds=2)
    assert (
        made.protocol == "ALFWorld's games, 3 of valid_unseen; 2 rounds; success is the goal at the end; text actions"
    )
    assert made.options["tasks"] == 3 and made.licence == "MIT"
    assert len(agentbench_hh(data=str(tmp_path), split="valid_seen").tasks(0)) == 1


def test_puzzles_of_a_workbook_are_numbered_from_0_and_rows_from_2(tmp_path: Path) -> None:
    header = ("story", "answer", "keys", "keys")
    other = ("Second?", *ROW[1:])
    workbook(tmp_path / "lateralthinkingpuzzle" / "dev.xlsx", [header, ROW, other])
    workbook(tmp_path / "lateralthinkingpuzzle_zh" / "standard.xlsx", [header, ROW])
    made = agentbench_ltp(split="dev", data=str(tmp_path), rounds=3)
    first, second = made.tasks(0)
    assert (first.id, second.id) == ("en-dev-00", "en-dev-01") and second.secret["puzzle"]["story"] == "Second?"
    assert STORY in first.prompt and "Action: and your question" in first.prompt
    assert made.protocol == (
        "AgentBench 0.2, ltp-dev, en, 2 puzzles; text actions; 3 rounds; hosted by our rules (the paper: gpt-3.5-turbo-0613)"
        "; game progress: the share of the truth's points that were found"
    )
    assert made.options == {"split": "dev", "language": "en", "judge": "rules", "actions": "text", "rounds": 3}
    chinese = agentbench_ltp(language="zh", data=str(tmp_path), actions="native", judge="scripted:echo")
    assert [task.id for task in chinese.tasks(0)] == ["zh-standard-00"] and "1 puzzle;" in chinese.protocol
    assert "hosted by scripted:echo" in chinese.protocol and "Action:" not in chinese.tasks(0)[0].prompt
    workbook(tmp_path / "lateralthinkingpuzzle" / "standard.xlsx", [header])
    with pytest.raises(DataError, match="has no puzzles below its header"):
        agentbench_ltp(data=str(tmp_path))
    workbook(tmp_path / "lateralthinkingpuzzle" / "standard.xlsx", [header, ROW, ("a", " ", "b", "c")])
    with pytest.raises(DataError, match=r"standard\.xlsx, row 3: story, answer"):
        agentbench_ltp(data=str(tmp_path))
    counts = {"found": 3, "points": 4, "yes": 5, "no": 2, "finish_round": 15}
    score = progress(first, ended(counts, limit=20))
    assert score.value == 0.75 and {key: score.detail[key] for key in ("accuracy", "efficiency", "relevance")} == {
        "accuracy": 0.25, "efficiency": 0.25, "relevance": 0.35,
    }  # fmt: skip
    assert progress(first, ended({**counts, "points": 0, "found": 0}, limit=0)).detail["relevance"] == 7


TABLE = {"table_name": "T", "table_info": {"columns": [{"name": "A", "type": "TEXT"}], "rows": [["x"]]}}


def test_items_of_the_database_have_the_engines_name_and_their_kind(tmp_path: Path) -> None:
    rows = [
        {"description": "How many?", "add_description": "Look.", "label": ["1"], "type": ["counting"], "table": TABLE},
        {"description": "Put y.", "label": ["UPDATE T SET A = 'y'"], "type": ["UPDATE"], "table": TABLE,
         "answer_md5": "[('abc',)]"},
    ]  # fmt: skip
    (tmp_path / "dbbench").mkdir()
    (tmp_path / "dbbench" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = agentbench_db(split="dev", data=str(tmp_path), rounds=4, actions="native")
    ask, change = made.tasks(0)
    assert (ask.id, ask.prompt, ask.hint) == ("dev-000", "How many?\nLook.", "a list of values")
    assert change.id == "dev-001" and change.prompt == "Put y.\n"
    assert ask.metadata == {"stratum": "SELECT", "kind": "counting"}
    assert change.metadata == {"stratum": "UPDATE", "kind": "UPDATE"}
    assert ask.conversation == (user(INSTRUCTIONS["native"].format(engine="SQLite")), assistant("Ok."))
    assert "native actions; at most 4 statements" in made.protocol and "; SQLite; an invalid action" in made.protocol
    assert "dbbench-dev, data folder, 2 of 60 items" in made.protocol
    assert made.options == {"split": "dev", "actions": "native", "engine": "sqlite", "rounds": 4}
    assert made.environment is not None and made.environment(ask).limit == 5  # type: ignore[attr-defined]
    for result, right in (
        ({"md5": "", "answer": ["1"]}, 1),
        ({"md5": "", "answer": ["2"]}, 0),
        ({"md5": "", "answer": None}, 0),
    ):
        assert solved(ask, ended(result)).value == right
    for result, right in (({"md5": "abc", "answer": None}, 1), ({"md5": "abd", "answer": ["y"]}, 0)):
        score = solved(change, ended(result))
        assert score.value == right and score.detail["kind"] == "UPDATE"


def test_the_shells_folder_is_given_or_in_the_data_and_holds_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    with pytest.raises(DataError, match=r"os_interaction is not in \$FIRSTHAND_DATA, which is not set: get it"):
        agentbench_os()
    with pytest.raises(DataError, match=f"os_interaction is not in {tmp_path}: get it"):
        _folder(str(tmp_path))
    inner = tmp_path / "os_interaction"
    (inner / "data").mkdir(parents=True)
    with pytest.raises(DataError):
        _folder(str(tmp_path))
    (inner / "scripts").mkdir()
    assert _folder(str(tmp_path)) == inner == _folder(str(inner))
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert _folder("") == inner
    with pytest.raises(DataError):
        _folder(str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="split is 'x': give dev or standard"):
        agentbench_os(split="x")  # type: ignore[arg-type]
    score = passed(Task("t", "?"), ended({"passed": True, "why": "so"}))
    assert (score.name, score.value, score.detail["why"]) == ("passed", 1.0, "so")


def test_shopping_and_steps_on_the_web_are_scored_by_their_parts() -> None:
    task = Task("t", "?", secret={"right": 0, "operation": "TYPE", "value": "two words"})
    bought = ended({"reward": 0.5, "parts": {"price": 1.0}})
    assert shop_reward(task, bought).value == 0.5 and shop_reward(task, bought).detail["price"] == 1.0
    assert [shop_success(task, ended({"reward": value})).value for value in (1, 0.999, 0)] == [1.0, 0.0, 0.0]
    assert shop_reward(task, ended({})).value == 0.0 == errand_share(task, ended({})).value
    assert errand_share(task, ended({"share": 0.25, "right": False})) == Score("share", 0.25)
    answer = "Answer: B.\nAction: TYPE\nValue: two words"
    assert step_success(task, ended({}, answer)) == Score("step_success", 1.0, {"operation_f1": 1.0})
    half = step_success(task, ended({}, answer.replace("words", "birds")))
    assert half.value == 0.0 and 0 < half.detail["operation_f1"] < 1
    assert element_chosen(task, ended({}, answer.replace("words", "birds"))).value == 1.0
    wrong = ended({}, answer.replace("B.", "C."))
    assert element_chosen(task, wrong).value == 0.0 == step_success(task, wrong).value
    assert element_chosen(task, ended({})).value == 0.0


def test_the_composite_tells_its_parts_and_scores_by_their_first_score() -> None:
    made = agentbench.agentbench(worlds="ws+hh", each=2, actions="native")
    assert made.options == {"split": "standard", "worlds": "ws+hh", "each": 2, "actions": "native"}
    assert made.protocol.startswith(
        "overall: the mean of the environments' scores in percent, each divided by the paper's average of its models; 2 "
        "environments of 8. ws: generated"
    )
    assert "native actions; hh: generated" in made.protocol and made.protocol.endswith("native actions")
    tasks = made.tasks(3)
    assert [task.id for task in tasks] == [
        "ws/seed3-level2-0000", "ws/seed3-level2-0050", "hh/seed3-level2-0000", "hh/seed3-level2-0030",
    ]  # fmt: skip
    assert tasks[2].metadata["stratum"] == "hh" and tasks[2].metadata["kind"] != "hh"
    [score] = [scorer(tasks[0], ended({"reward": 0.5})) for scorer in made.scorers]
    assert isinstance(score, Score) and (score.name, score.value) == ("score", 0.5)
    assert (score.detail["world"], score.detail["metric"]) == ("ws", "reward")
    assert made.environment is not None
    world: Any = made.environment(tasks[2])
    assert type(world.world).__name__ == "HouseholdWorld" and world.actions == "native"
    with pytest.raises(UnknownName, match="no environment 'zzz'; there are os, db, kg"):
        agentbench.agentbench(worlds="ws+zzz")
    assert len(agentbench.agentbench(worlds="hh", each=1).tasks(0)) == 1
