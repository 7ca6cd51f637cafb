"""Benchmarks with a world, from small files: what each says of itself, its tasks, and the place that it opens."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said
from firsthand.benchmarks import agentbench_db as database
from firsthand.benchmarks import agentbench_hh as household
from firsthand.benchmarks import agentbench_kg as graph
from firsthand.benchmarks import agentbench_ltp as puzzles
from firsthand.benchmarks import agentbench_wb as browsing
from firsthand.benchmarks import miniwob, textworld
from firsthand.benchmarks.protocols import tau_bench
from firsthand.benchmarks.swe import swe_tasks
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.resolved import END, START
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.puzzles.puzzle import read_puzzle
from swe_local import GOOD, adds
from test_agentbench_ltp import ROW, workbook

TABLE = {"table_name": "T", "table_info": {"columns": [{"name": "A", "type": "TEXT"}], "rows": [["x"]]}}


def put(path: Path, body: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return path


def ended(result: Any, answer: str | None = None) -> Trace:
    state = {"rounds": 4, "invalid_actions": 1, "longest_loop": 2, "ended": "answered", "result": result}
    return Trace("t", "b", "t", {}, 0, 0, "", 0.0, answer=answer, final_state=state)


def test_tables_and_puzzles_are_told_with_their_rounds(tmp_path: Path) -> None:
    row = {"description": "How many?", "label": ["1"], "type": ["counting"], "table": TABLE}
    put(tmp_path / "dbbench" / "standard.jsonl", json.dumps(row) + "\n")
    made = database.agentbench_db(data=str(tmp_path))
    assert facts(made) == said(
        "agentbench_db", "solved solved_exact",
        "AgentBench's database tasks: questions about a table and changes of it, by SQL.",
        "AgentBench 0.2, dbbench-standard, data folder, 1 of 300 items; text actions; at most 15 statements; "
        "an answer is "
        "compared by the paper's rule, a change by the MD5 of the table, which drops NULLs and joins cells by commas; "
        "solved_exact compares values, rows and cells one by one; SQLite; an invalid action is answered "
        "and costs a "
        "round (the paper ends the attempt)", "Apache-2.0", environment=True,
        options={"split": "standard", "actions": "text", "engine": "sqlite", "rounds": 15},
    )  # fmt: skip
    (task,) = made.tasks(0)
    place: Any = made.environment(task)
    assert (place.limit, place.actions, place.world.item.to_json()) == (16, "text", task.secret["item"])
    assert "operate a SQLite database" in task.conversation[0].text and task.prompt == "How many?\n"
    for given in ({"split": "test"}, {"engine": "mysql"}):
        shown = {"split": "standard", "engine": "sqlite", **given}
        told = (
            f"split is {shown['split']!r} and engine {shown['engine']!r}: give dev or standard, and sqlite or mariadb"
        )
        assert refused(ConfigError, database.agentbench_db, **given) == told
    workbook(tmp_path / "lateralthinkingpuzzle" / "standard.xlsx", [("story", "answer", "keys", "keys"), ROW])
    made = puzzles.agentbench_ltp(data=str(tmp_path), rounds=7, actions="native")
    assert facts(made) == said(
        "agentbench_ltp", "progress",
        "AgentBench's lateral thinking puzzles: find out the truth behind a story by yes-or-no questions.",
        "AgentBench 0.2, ltp-standard, en, 1 puzzle; native actions; 7 rounds; hosted by our rules (the paper: "
        "gpt-3.5-turbo-0613); game progress: the share of the truth's points that were found", "Apache-2.0",
        environment=True,
        options={"split": "standard", "language": "en", "judge": "rules", "actions": "native", "rounds": 7},
    )  # fmt: skip
    puzzle = read_puzzle(ROW, "w")
    (task,) = made.tasks(0)
    assert task == Task(
        "en-standard-00", puzzles.RULES.format(story=puzzle.story, how=""), secret={"puzzle": puzzle.to_json()}
    )
    place = made.environment(task)
    assert (place.limit, place.actions, place.world.puzzle, place.world.rounds) == (7, "native", puzzle, 7)
    for given in ({"split": "test"}, {"language": "de"}):
        shown = {"split": "standard", "language": "en", **given}
        told = f"split is {shown['split']!r} and language {shown['language']!r}: give dev or standard, and en or zh"
        assert refused(ConfigError, puzzles.agentbench_ltp, **given) == told
    told = (
        "lateralthinkingpuzzle/dev.xlsx of AgentBench is in no data folder: get it from "
        "github.com/THUDM/AgentBench and give "
        "data=FOLDER"
    )
    assert refused(DataError, puzzles.agentbench_ltp, split="dev", data="hub") == told


def test_households_are_generated_or_listed_games(tmp_path: Path) -> None:
    made = household.agentbench_hh(level=1, tasks=3, rounds=4, actions="native", explain=True)
    assert facts(made) == said(
        "agentbench_hh", "household_success",
        "Household tasks by text actions: find, clean, heat, cool, examine, put (AgentBench, ALFWorld).",
        "generated, version 1, level 1; 4 rounds; success is the goal at the end; native actions; refusals are "
        "explained",
        "none needed: generated", environment=True,
        options={"level": 1, "tasks": 3, "rounds": 4, "actions": "native", "version": 1},
    )  # fmt: skip
    task = made.tasks(6)[2]
    house = household.make_house(6, 2, 1)
    assert bodies([task]) == [
        {
            "id": house.id, "prompt": household.INSTRUCTIONS + household.HouseGame(house).opening,
            "metadata": {"kind": house.goal.kind, "stratum": house.goal.kind},
            "secret": {"seed": 6, "index": 2, "level": 1},
        }
    ]  # fmt: skip
    place: Any = made.environment(task)
    assert (place.limit, place.actions, place.world.explain, place.world.house.id) == (4, "native", True, house.id)
    assert household.agentbench_hh().environment(task).world.explain is False
    folder = tmp_path / "json_2.1.1" / "valid_unseen"
    games = [put(folder / name / "t1" / "game.tw-pddl", "{}") for name in ("b", "a")]
    assert household._games(tmp_path, "", "valid_unseen") == games[::-1]
    assert refused(DataError, household._games, tmp_path, "", "train") == (
        f"there is no game.tw-pddl in {tmp_path / 'json_2.1.1' / 'train'}: fill {tmp_path} by alfworld-download, "
        f"or leave data "
        "out"
    )
    for won, value in ((True, 1.0), (1, 0.0), (None, 0.0)):
        score = household.household_success(task, ended({"won": won}))
        assert (score.name, score.value, score.detail["kind"]) == ("success", value, house.goal.kind)


def test_the_papers_questions_of_a_graph_end_with_the_last_variable(tmp_path: Path) -> None:
    record = {
        "qid": "7", "question": "Who?", "entities": {"Ann": "m.1", "Bob": "m.2"}, "source": "webq",
        "actions": ["get_relations(m.1)", "get_neighbors(m.1,people.x)", "get_attributes(#0)", "argmax(#0,age)"],
        "answer": [{"answer_argument": "m.9"}, {"answer_argument": 4}],
    }  # fmt: skip
    path = put(tmp_path / "agents" / "agentbench" / "knowledgegraph" / "dev.json", [{**record, "qid": "6"}, record])
    task = graph._task(graph._records("dev", "g.nt", str(tmp_path)), 0, 2, "", 1)
    assert bodies([task]) == [
        {
            "id": "7", "prompt": f"{graph.INSTRUCTIONS}Question: Who?\nEntities: Ann is m.1; Bob is m.2",
            "metadata": {"question": "Who?", "entities": record["entities"], "source": "webq"},
            "secret": {
                "actions": [
                    "get_relations(m.1)", "get_neighbors(m.1, people.x)", "get_attributes(#0)", "argmax(#0, age)",
                    "Final Answer: #1",
                ],
                "answer": ["m.9", "4"],
            },
        }
    ]  # fmt: skip
    made = graph.agentbench_kg(split="dev", graph="g.nt", data=str(tmp_path), rounds=1)
    assert facts(made) == said(
        "agentbench_kg", "graph_f1 graph_exact", "Questions over a knowledge graph by seven functions (AgentBench).",
        "AgentBench's dev.json over g.nt; 1 round; F1 of the answer's entities; text actions", "Apache-2.0",
        environment=True,
        options={"split": "dev", "level": 2, "about": "", "tasks": 2, "rounds": 1, "actions": "text"},
    )  # fmt: skip
    assert refused(DataError, graph._records, "dev", "", str(tmp_path)) == (
        f"the 2 questions of {path} are about Freebase: give graph=FILE with its triples (N-Triples, .nt or "
        f".nt.gz), or "
        "split=generated"
    )
    first = put(tmp_path / "dev.json", [record])
    assert len(graph._records("dev", "g", str(tmp_path))) == 1 and first != path
    assert refused(DataError, graph._records, "std", "g", str(tmp_path)) == (
        f"there is no std.json in {tmp_path} or its agents/agentbench/knowledgegraph: get it from AgentBench's "
        f"repository "
        "(data/knowledgegraph), and give data=FOLDER"
    )
    for given in ({"split": "test"}, {"level": 4}, {"tasks": 0}, {"tasks": 10_001}):
        shown = {"split": "generated", "level": 2, "tasks": 100, **given}
        told = (
            f"split is {shown['split']!r}, level {shown['level']} and tasks {shown['tasks']}: give one of "
            f"generated, dev, "
            "std, level 1 to 3 and 1 to 10,000 tasks"
        )
        assert refused(ConfigError, graph.agentbench_kg, **given) == told
    assert refused(ConfigError, graph.agentbench_kg, level=1, about="x") == (
        "about is 'x': give one of film.film, people.person, location.citytown, sports.sports_team, book.book at "
        "level 1, "
        "with generated questions"
    )
    assert "about is 'book.book'" in refused(ConfigError, graph.agentbench_kg, split="dev", about="book.book")
    told = "graph and data are for the paper's questions: give split=std or split=dev with them"
    for given in ({"graph": "g"}, {"data": "d"}):
        assert refused(ConfigError, graph.agentbench_kg, **given) == told
    generated = graph.agentbench_kg(level=1, tasks=2, about="book.book")
    task = generated.tasks(5)[1]
    made_question = graph.make_question(5, 1, 1, "book.book")
    assert (task.id, task.secret["answer"]) == ("seed5-level1-book.book-0001", list(made_question.answer))
    assert task.metadata == {
        "graph": 5, "question": made_question.question, "entities": dict(made_question.entities),
        "shape": made_question.shape, "stratum": made_question.shape,
    }  # fmt: skip


def test_steps_of_recorded_sessions_are_choices_of_elements(tmp_path: Path) -> None:
    html = "".join(f'<a backend_node_id="{n}">link {n}</a>' for n in range(3))
    action = {
        "pos_candidates": [{"backend_node_id": 1}], "neg_candidates": [{"backend_node_id": n} for n in (0, 2)],
        "cleaned_html": html, "operation": {"op": "TYPE", "value": "Two"},
    }  # fmt: skip
    record = {"annotation_id": "s-1", "confirmed_task": "Go", "action_reprs": ["r0"], "actions": [action]}
    path = put(tmp_path / "m2w" / "a.json", [record])
    made = browsing.agentbench_wb(data=str(path.parent))
    assert facts(made) == said(
        "agentbench_wb", "step_success step_exact element_chosen",
        "Steps of recorded sessions on real web sites, each a choice among five elements (Mind2Web).",
        "Mind2Web in m2w: the right element among 5 drawn by the seed; step_exact is the right element, operation "
        "and value; step success, as published, an F1 of 1 over the set of their words",
        "CC-BY-4.0", options={"data": str(path.parent)},
    )  # fmt: skip
    (task,), (step,) = made.tasks(4), browsing.read_steps(path.parent, 4)
    assert bodies([task]) == [
        {
            "id": "s-1-00", "prompt": browsing.question(step), "verbatim": True, "sampling": {"max_tokens": 96},
            "metadata": {"cluster": "s-1"}, "secret": {"right": step.right, "operation": "TYPE", "value": "Two"},
        }
    ]  # fmt: skip
    answer = f"Answer: {'BCDEF'[step.right]}.\nAction: type\nValue: two"
    assert browsing.step_success(task, ended({}, answer)) == Score("step_success", 1.0, {"operation_f1": 1.0})
    assert (
        browsing.step_exact(task, ended({}, answer)).value
        == browsing.element_chosen(task, ended({}, answer)).value
        == 1
    )
    made = browsing.agentbench_wb(level=1, tasks=2, rounds=3, actions="native")
    assert (
        made.description == "Errands on web sites in a headless Chromium: forms, tables, carts, calendars (AgentBench)."
    )
    task = made.tasks(3)[1]
    place: Any = made.environment(task)
    assert (place.limit, place.actions, task.secret) == (3, "native", {"seed": 3, "index": 1, "level": 1})
    assert place.world.visit.args == (browsing.make_errand(3, 1, 1),)
    for right, value in ((True, 1.0), (1, 0.0), (None, 0.0)):
        score = browsing.errand_done(task, ended({"right": right}))
        assert (score.name, score.value, score.detail["kind"]) == ("done", value, task.metadata["kind"])
    assert browsing.errand_share(task, ended({"share": 0.5})) == Score("share", 0.5)


def test_small_web_tasks_come_in_turn_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    put(tmp_path / "core" / "core.js", "")
    put(tmp_path / "miniwob" / "click-test.html", "")
    made = miniwob.miniwob(kind="click-test", tasks=3, rounds=1, seconds=2.5, actions="native", data=str(tmp_path))
    assert facts(made) == said(
        "miniwob", "miniwob_success miniwob_reward",
        "Small tasks on web pages in a headless Chromium, rewarded by the pages (MiniWoB++).",
        "MiniWoB++'s pages, 1 type of task; 1 round, 2.5 s; elements by number in place of pixels; native actions", "MIT",
        environment=True,
        options={"kind": "click-test", "tasks": 3, "rounds": 1, "seconds": 2.5, "actions": "native"},
    )  # fmt: skip
    seed = derive_seed("miniwob", 9, "click-test", 2) % 2**31
    task = made.tasks(9)[2]
    assert task == Task(
        "seed9-click-test-0002", miniwob.INSTRUCTIONS, metadata={"kind": "click-test", "stratum": "click-test"},
        secret={"seed": seed},
    )  # fmt: skip
    place: Any = made.environment(task)
    assert (place.limit, place.actions) == (1, "native")
    assert place.world.visit.args == (tmp_path, "click-test", seed, 2.5)
    every = miniwob.miniwob(data=str(tmp_path), tasks=20)
    kinds = [each.metadata["kind"] for each in every.tasks(0)]
    assert kinds == [*miniwob.SCRIPTED, miniwob.SCRIPTED[0]] and "19 types of task; 15 rounds, 600 s" in every.protocol
    told = f"kind is 'click-tes': did you mean click-test? 1 types are in {tmp_path}"
    assert refused(ConfigError, miniwob.miniwob, kind="click-tes", data=str(tmp_path)) == told
    for tasks, seconds in ((0, 1), (10_001, 1), (1, 0), (1, 86_400.5)):
        told = f"tasks is {tasks} and seconds {seconds}: give 1 to 10,000 tasks and at most 86,400 seconds"
        assert refused(ConfigError, miniwob.miniwob, tasks=tasks, seconds=seconds, data=str(tmp_path)) == told
    assert miniwob.miniwob(tasks=10_000, seconds=86_400, data=str(tmp_path)).options["tasks"] == 10_000
    done = miniwob.miniwob_success(task, ended({"raw_reward": 1, "reward": 0.25, "task": "Click."}))
    assert (done.name, done.value, done.detail["kind"], done.detail["task"]) == ("success", 1.0, "click-test", "Click.")
    assert miniwob.miniwob_success(task, ended({"raw_reward": 0.9})).value == 0.0
    assert miniwob.miniwob_reward(task, ended({"raw_reward": 1, "reward": 0.25})) == Score(
        "reward", 0.25, {"raw_reward": 1}
    )
    assert miniwob.miniwob_reward(task, ended({})) == Score("reward", 0.0, {"raw_reward": 0.0})


def test_text_games_are_told_by_their_size() -> None:
    made = textworld.textworld(level=1, tasks=4, rounds=1, actions="native")
    size, version = textworld.GAME_LEVELS[1], made.options["version"]
    assert made.protocol == (
        f"made by the package textworld, version {version}, level 1 (1 room, {size.objects} objects, a quest of 2 "
        f"commands); 1 "
        "round; success is the quest; native actions"
    )
    assert (made.licence, made.description) == (
        "MIT, and generated", "Text games with a quest, made and played by TextWorld (Côté et al., 2018).",
    )  # fmt: skip
    assert made.options == {"level": 1, "tasks": 4, "rounds": 1, "actions": "native", "version": version}
    for level, tasks in ((0, 1), (4, 1), (1, 0), (1, 10_001)):
        told = f"level is {level} and tasks {tasks}: give level 1 to 3 and 1 to 10,000 tasks"
        assert refused(ConfigError, textworld.textworld, level=level, tasks=tasks) == told
    task = Task("t", "")
    for won, value in ((True, 1.0), (1, 0.0), (None, 0.0)):
        assert textworld.quest_done(task, ended({"won": won})).value == value
    assert textworld.quest_score(task, ended({"score": 2, "max_score": 8})) == Score("points", 0.25)
    assert textworld.quest_score(task, ended({"score": 2, "max_score": 0})).value == 2.0
    assert textworld.quest_score(task, ended({})).value == 0.0


def test_changes_of_a_database_are_compared_to_a_millionth() -> None:
    wanted = {"users": {"a": {"n": 20, "on": True, "l": [1, "x"]}}}
    task = Task("t", "", secret={"changes": wanted, "outputs": ["1200", "YES"]})
    changes = {"users": {"a": {"n": 20.0000004, "on": True, "l": (1.0, "x")}}}
    said_ = ["Yes.", "That is 1,200 dollars."]
    for result, right in (
        ({"changes": changes, "said": said_}, (True, True)), ({"changes": wanted, "said": said_[:1]}, (True, False)),
        ({"changes": {"users": {"a": {"n": 20.00001, "on": True, "l": [1, "x"]}}}, "said": said_}, (False, True)),
        ({"changes": {"users": {"a": {"n": 20, "on": 1, "l": [1, "x"]}}}, "said": said_}, (False, True)),
        ({"said": []}, (False, False)), ({"changes": {}, "said": said_}, (False, True)),
    ):  # fmt: skip
        found = [score(task, ended(result)) for score in (tau_bench.database_matches, tau_bench.outputs_said)]
        assert [(each.name, each.value) for each in found] == [
            ("database", float(right[0])),
            ("outputs", float(right[1])),
        ]
        reward = tau_bench.tau_reward(task, ended(result))
        assert (reward.name, reward.value) == ("reward", float(all(right)))
        assert (reward.detail["database"], reward.detail["outputs"]) == right
    assert tau_bench._rounded({"a": -0.0, "b": True, "c": "1"}) == {"a": 0.0, "b": True, "c": "1"}
    assert str(tau_bench._rounded(-0.0000001)) == "0.0"


RECORD = {
    "instance_id": "o__r-1", "repo": "o/r", "base_commit": "a" * 40, "problem_statement": "It fails.", "patch": GOOD,
    "test_patch": adds("tests/test_h.py", "x\n"), "FAIL_TO_PASS": '["t1"]', "PASS_TO_PASS": ["t2"], "more": 1,
}  # fmt: skip
SCRIPT = f"set up\n{START}\npytest\n{END}\n"


def test_a_checked_record_has_its_fields_and_nothing_else() -> None:
    plain = {
        key: RECORD[key] for key in ("instance_id", "repo", "base_commit", "problem_statement", "patch", "test_patch")
    }
    expected = {
        **plain, "FAIL_TO_PASS": ["t1"], "PASS_TO_PASS": ["t2"], "log_parser": "pytest", "eval_type": "pass_and_fail",
        "image": "", "text": "", "eval_script": SCRIPT,
    }  # fmt: skip
    assert swe_tasks.check({**RECORD, "eval_script": SCRIPT, "image": None, "log_parser": ""}, "w") == expected
    given = {
        "log_parser": "parse_log_pytest",
        "eval_type": "fail_only",
        "image": "i",
        "text": "t",
        "eval_script": SCRIPT,
    }
    assert swe_tasks.check({**RECORD, **given, "PASS_TO_PASS": "[]"}, "w") == {**expected, **given, "PASS_TO_PASS": []}
    assert swe_tasks.check({**RECORD, "test_cmd": "run it"}, "w")["eval_script"] == swe_tasks.make_script(
        "run it", "a" * 40, RECORD["test_patch"]
    )
    for name in ("x" * 200, "A.b_c+d-1"):
        assert swe_tasks.check({**RECORD, "instance_id": name}, "w")["instance_id"] == name
    names = "must be a list of names of tests, or such a list as JSON in a string"
    for change, told in (
        ({"instance_id": "x" * 201}, f"the instance_id {'x' * 60!r} has characters besides letters, digits and _.+-"),
        ({"instance_id": "é1"}, "the instance_id 'é1' has characters besides letters, digits and _.+-"),
        ({"base_commit": "a" * 41}, f"base_commit is {'a' * 41!r}: all 40 digits of a hash were expected"),
        ({"FAIL_TO_PASS": "[1"}, f"FAIL_TO_PASS {names}"), ({"PASS_TO_PASS": None}, f"PASS_TO_PASS {names}"),
        ({"FAIL_TO_PASS": "[]"}, "FAIL_TO_PASS is empty, so there is nothing to resolve"),
        ({"test_patch": " "}, "the field 'test_patch' holds ' ', and text was expected"),
        ({"text": ["a"]}, "the field 'text' holds \"['a']\", and text was expected"),
        ({"eval_type": "all"}, "eval_type is 'all': pass_and_fail or fail_only was expected"),
        ({"eval_script": 7}, "the field 'eval_script' holds '7', and text was expected"),
        ({"eval_script": "x"}, f"the eval_script holds no test command between the lines {START} and {END}"),
        ({"environment_setup_commit": 1}, "there is no eval_script: use the records of SWE-bench 5, which have that column"),
        ({"test_cmd": "a\nb"}, "test_cmd holds 'a\\nb', and one line was expected"),
    ):  # fmt: skip
        assert refused(DataError, swe_tasks.check, {**RECORD, **change}, "w") == f"w: {told}"
    told = refused(DataError, swe_tasks.check, {**RECORD, "log_parser": "parse_log_x"}, "w")
    assert told.startswith("w: log_parser is 'parse_log_x': there are ") and "pytest" in told
    assert refused(DataError, swe_tasks.check, {**RECORD, "patch": "x"}, "w").startswith("w: patch: ")
    assert swe_tasks.check({**RECORD, "test_cmd": "x", "environment_setup_commit": 1}, "w")["patch"] == GOOD


def test_records_are_read_from_lines_lists_and_packed_lines(tmp_path: Path) -> None:
    second = {**RECORD, "instance_id": "o__r-2"}
    text = f"{json.dumps(RECORD)}\n{json.dumps(second)}\n"
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    files = [put(tmp_path / "r.jsonl", text), put(tmp_path / "r.json", [RECORD, second]), packed]
    rows = (swe_tasks.check(RECORD, "w"), swe_tasks.check(second, "w"))
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert swe_tasks.read_records(path, "mine") == swe_tasks.Records(rows, "mine, 2 items", tmp_path, digest)
    assert [row.where for row in swe_tasks._lines(packed)] == [f"{packed}, line 1", f"{packed}, line 2"]
    path = put(tmp_path / "twice.json", [RECORD, second, RECORD])
    told = f"{path}, item 3: the instance_id 'o__r-1' came before, at {path}, item 1"
    assert refused(DataError, swe_tasks.read_records, path, "o") == told
    told = f"{tmp_path / 'r.csv'}: a .parquet, .jsonl, .jsonl.gz or .json file was expected"
    assert refused(DataError, swe_tasks._lines, put(tmp_path / "r.csv", "a")) == told
    source = swe_tasks.Source("x/swe.jsonl", 2, "", "d/s", "", "", dict, also=("y.jsonl",))
    put(tmp_path / "d" / "r.jsonl", text)
    assert swe_tasks.find_records(source, str(tmp_path / "d"), "r.jsonl").origin == "data folder, 2 items"
    put(tmp_path / "d" / "y.jsonl", json.dumps(RECORD))
    assert swe_tasks.find_records(source, str(tmp_path / "d"), "r.jsonl").origin == "data folder, 1 items"


@pytest.fixture(autouse=True)
def nothing_else_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
