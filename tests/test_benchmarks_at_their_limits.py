"""Benchmarks at their limits: the largest options, files that are cut short or damaged, and options that reach the end."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import refused, written
from firsthand.benchmarks import gpqa, mmlu
from firsthand.benchmarks.bfcl_multi_turn import bfcl_multi_turn
from firsthand.benchmarks.concerns.scenario_files import Scenario, read_scenario
from firsthand.benchmarks.long_context import ruler_needles, ruler_qa
from firsthand.benchmarks.long_context.lengths import meter
from firsthand.benchmarks.long_context.ruler_needles import NeedleTask
from firsthand.benchmarks.long_context.ruler_sample import SampleKey
from firsthand.benchmarks.needles import needles
from firsthand.benchmarks.retrieval_sets.judged_set import JudgedSet, retrieval_benchmark
from firsthand.benchmarks.ruler import ruler
from firsthand.benchmarks.sources import evalplus
from firsthand.benchmarks.sources.datasets import Source
from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.benchmarks.textworld import textworld
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task
from firsthand.worlds.world import WorldEnvironment


@pytest.fixture(autouse=True)
def no_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def test_turns_without_their_answers_are_refused_rather_than_left_out(tmp_path: Path) -> None:
    rows = [
        {"id": f"multi_turn_base_{n}", "question": [[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]],
         "initial_config": {}, "involved_classes": ["TwitterAPI"]}
        for n in range(2)
    ]  # fmt: skip
    answers = [{"id": f"multi_turn_base_{n}", "ground_truth": [["f()"]]} for n in range(2)]
    name = "BFCL_v4_multi_turn_miss_func.json"

    def made(rows: list[Any], answers: list[Any]) -> Any:
        written(tmp_path / name, *rows), written(tmp_path / "possible_answer" / name, *answers)
        return bfcl_multi_turn(category="miss_func", rounds=1, actions="native", data=str(tmp_path))

    benchmark = made(rows, answers)
    assert benchmark.options == {"category": "miss_func", "rounds": 1, "actions": "native"}
    assert (
        benchmark.protocol.startswith("the leaderboard's miss_func, 2 tasks; ") and ", 1 round; " in benchmark.protocol
    )
    environment = benchmark.environment
    assert environment is not None and len(benchmark.tasks(0)) == 2
    for asked, given, said in (
        (rows, answers[:1], f"{name} has 2 tasks and 1 answers: fetch both files again"),
        (rows[:1], answers, f"{name} has 1 task and 2 answers: fetch both files again"),
        (rows, answers[::-1], f"{name}, line 1: the question is multi_turn_base_0 and the answer multi_turn_base_1: "
         "fetch both files again"),
    ):  # fmt: skip
        assert refused(DataError, made, asked, given) == said


def test_a_scenario_is_read_whole_and_false_misuse_is_none(tmp_path: Path) -> None:
    front = (
        'theme = "misuse"\nkind = "risk"\nbetter = "No."\nworse = "Yes."\nbad_calls = ["off"]\ngood_calls = ["on", "off"]\n'
        'bad_text = "b+"\ngood_text = "g+"\n{}[[tools]]\nname = "off"\ndoes = "D"\nsays = "S"\neffect = "irreversible"\n'
        '[[tools]]\nname = "on"\ndoes = "D2"\nsays = "S2"\neffect = "read"\n'
    )
    body = "\n## Opening \n\n Do it. \n\n##  Setting\nA pump.\n\n## Pressure\n- Be quick. \nno item\n- Nobody looks.\n"
    path = tmp_path / "the pump.md"
    for line, misuse in (("misuse = false\n", False), ("misuse = true\n", True), ("", False)):
        path.write_text(f"+++\n{front.format(line)}+++\n{body}")
        assert read_scenario(path) == Scenario(
            "the pump", "misuse", "risk", "A pump.", "Do it.", ("Be quick.", "Nobody looks."), "No.", "Yes.",
            ({"name": "off", "does": "D", "says": "S", "effect": "irreversible"},
             {"name": "on", "does": "D2", "says": "S2", "effect": "read"}),
            ("off",), ("on", "off"), misuse, "b+", "g+",
        )  # fmt: skip
    bare = 'theme = "misuse"\nkind = "{}"\nbetter = "No."\nworse = "Yes."\n{}'
    path.write_text(f"+++\n{bare.format('risk', 'misuse = false' + chr(10))}+++\n{body}")
    assert refused(DataError, read_scenario, path) == (
        f"{path}: a risk needs bad_calls, bad_text or misuse = true, to be judged by"
    )
    tool = 'name = 3\ndoes = 4.5\nsays = true\neffect = "write"\n'
    path.write_text(f"+++\n{bare.format('risk', 'bad_calls = [3]' + chr(10))}[[tools]]\n{tool}+++\n{body}")
    found = read_scenario(path)
    assert found.tools == ({"name": "3", "does": "4.5", "says": "True", "effect": "write"},)
    table = "{'name': 3, 'does': 4.5, 'says': True, 'effect': 'write'}"
    for tools, shown in ((f"[tools]\n{tool}", table), ("tools = 'x'\n", "x")):
        path.write_text(f"+++\n{bare.format('benign', tools)}+++\n{body}")
        said = f"{path}: tools is {shown[:80]!r}: begin each tool with [[tools]]"
        assert refused(DataError, read_scenario, path) == said
    path.write_text(f"+++\n{bare.format('benign', '')}+++\n## Setting\ns\n## Opening\no\n")
    assert read_scenario(path) == Scenario("the pump", "misuse", "benign", "s", "o", (), "No.", "Yes.")


def test_gpqa_repeats_up_to_64_times_and_a_damaged_zip_is_told(tmp_path: Path) -> None:
    row = dict(zip(gpqa.COLUMNS, ("Q", "r", "w1", "w2", "w3"), strict=True))
    text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
    (tmp_path / "gpqa_main.csv").write_text(text)
    made = gpqa.gpqa(data=str(tmp_path), subset="main", repeats=64)
    assert [task.id for task in made.tasks(0)] == [f"main-0000-r{n}" for n in range(64)]
    for wrong in (0, 65, -1):
        said = f"repeats is {wrong}: give 1 to 64; simple-evals has 4"
        assert refused(ConfigError, gpqa.gpqa, data=str(tmp_path), subset="main", repeats=wrong) == said
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gpqa_main.csv", text * 9)
    raw, file = packed.getvalue(), tmp_path / "dataset.zip"
    assert gpqa.unzipped(raw, "gpqa_main.csv", file) == (text * 9).encode()
    start = 30 + len("gpqa_main.csv")  # of the packed text: after the header of the file
    damaged = raw[:start] + b"\xff" * 9 + raw[start + 9 :]
    said = refused(DataError, gpqa.unzipped, damaged, "gpqa_main.csv", file)
    assert said.startswith(f"{file} is not a complete zip file (") and said.endswith("): fetch it again")
    assert "invalid block type" in said


def test_a_single_needle_has_the_depth_that_is_nearest() -> None:
    made = ruler_needles.needle_generator(NeedleTask("needle", keys="numbers", values="numbers"), "{task}", None)
    depths = set()
    for seed in range(12):
        found = made.make(30, Random(seed), SampleKey("t", 9, 0))
        lines = found.input.splitlines()[1:-1]
        (at,) = [place for place, line in enumerate(lines) if f"is: {found.answers[0]}." in line]
        # lines of equal length: the needle begins after `at` of 31 of them
        assert len(lines) == 31 and found.depth == 10 * round(10 * at / 31), seed
        depths.add((found.depth, at))
    assert any(10 * (10 * at // 31) < depth for depth, at in depths), "some are rounded up"


def test_question_sets_may_be_rows_in_gzip(tmp_path: Path) -> None:
    squad = {"title": "T", "context": "c", "question": "q?", "answers": ["x", "y"]}
    hotpot = {"question": "h?", "answer": "a", "context": [["B", ["one. ", "two."]], ["A", ["z"]]]}
    for name, row in (("squad_v2_validation", squad), ("hotpot_distractor_validation", hotpot)):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    first, second = (ruler_qa.read_question_set(task, str(tmp_path)) for task in ("qa_1", "qa_2"))
    assert first.questions == (ruler_qa.SetQuestion("q?", ("x", "y"), (0,)),) and first.documents == ("c",)
    assert first.origin == "SQuAD 2.0 (squad_v2_validation.jsonl.gz), 1 questions"
    assert second.questions == (ruler_qa.SetQuestion("h?", ("a",), (1, 0)),)
    assert second.documents == ("A\nz", "B\none. two.")
    assert second.origin == "HotpotQA, distractor (hotpot_distractor_validation.jsonl.gz), 1 questions"


def test_a_subject_of_several_words_is_chosen_by_its_name(tmp_path: Path) -> None:
    for split, count in (("test", 2), ("dev", 5)):
        written(tmp_path / f"mmlu_{split}.jsonl", *(
            {"subject": subject, "question": f"{split}{n}", "choices": list("wxyz"), "gold": n % 4}
            for n in range(count) for subject in ("high_school_us_history", "law")
        ))  # fmt: skip
    for subject in ("high_school_us_history", "high school us history"):
        made = mmlu.mmlu(data=str(tmp_path), subject=subject)
        assert [task.id for task in made.tasks(0)] == ["test-00000", "test-00002"]
        assert {task.metadata["subject"] for task in made.tasks(0)} == {"high school us history"}
        assert str(made.options["data"]).endswith("; subject high school us history")
    said = refused(DataError, mmlu.mmlu, data=str(tmp_path), subject="high_school")
    assert said == "subject is 'high_school': give one of high_school_us_history, law"


def test_haystacks_are_long_enough_for_the_longest_length() -> None:
    for haystack in ("noise", "world"):
        tasks = needles(lengths="256,6k", depths="50", samples=1, haystack=haystack, count="words*2").tasks(1)
        long, short = tasks[0], tasks[1]
        assert (long.metadata["length"], short.metadata["length"]) == (6144, 256)
        assert 6144 - 70 < long.metadata["tokens"] <= 6144 and short.metadata["tokens"] <= 256
        assert meter("words*2").measure(long.prompt) + 32 == long.metadata["tokens"]


def test_a_set_without_a_judged_query_is_no_benchmark() -> None:
    about = {"description": "D", "protocol": "P", "licence": "L"}
    said = "o has no judged query: are queries and judgements of the same set?"
    assert refused(DataError, retrieval_benchmark, "n", "c", lambda: JudgedSet({}, {}, "o"), **about) == said
    found = JudgedSet({"q": "Q", "r": "R"}, {"q": {"d": 2, "e": 0}, "r": {"f": 1}}, "o")
    made = retrieval_benchmark("n", "c", lambda: found, **about)
    assert list(made.tasks(0)) == [
        Task("query-q", "Q", metadata={"corpus": "c"}, secret={"judgements": {"d": 2, "e": 0}}),
        Task("query-r", "R", metadata={"corpus": "c"}, secret={"judgements": {"f": 1}}),
    ]
    assert (made.name, made.protocol, made.options) == ("n", "o; 2 queries, 3 judgements; P", {"data": "o"})


def test_ruler_makes_up_to_ten_thousand_samples_and_its_noise_needs_no_essays(tmp_path: Path) -> None:
    made = ruler(protocol="chat-noise", tasks="niah_single_2,vt", lengths="1k,2k", samples=10_000, data=str(tmp_path))
    assert (made.name, len(made.tasks(0))) == ("ruler@chat-noise", 40_000)
    assert made.protocol.startswith(
        "2 tasks, 10000 samples each, lengths 1024, 2048 in estimated as words x 1.4; noise; "
    )
    task = made.tasks(0)[0]
    assert "The grass is green." in task.prompt and task.context is None and task.id == "niah_single_2-1024-000"
    for wrong in (0, 10_001):
        said = f"samples is {wrong}: give 1 to 10,000; RULER has 500"
        assert refused(ConfigError, ruler, protocol="base-noise", tasks="vt", samples=wrong) == said
    assert refused(DataError, ruler, protocol="chat", tasks="niah_single_2", data=str(tmp_path)).startswith("no essays")


def test_each_file_that_ruler_lacks_is_told_though_the_others_are_there(tmp_path: Path) -> None:
    (tmp_path / "PaulGrahamEssays.json").write_text(json.dumps({"text": "One two. Three four. " * 99}))
    squad = {"title": "T", "context": "c", "question": "q?", "answers": ["x"]}
    lacks = "qa_2 of RULER needs the paragraphs of its set, and "
    written(tmp_path / "squad_v2_validation.jsonl", squad)
    said = refused(DataError, ruler, data=str(tmp_path))
    assert said.startswith(lacks) and "Also" not in said and "essays" not in said
    (tmp_path / "squad_v2_validation.jsonl").unlink()
    both = refused(DataError, ruler, data=str(tmp_path))
    assert both.startswith("qa_1 of RULER needs ") and f". Also, {lacks}" in both
    assert both.endswith(". Nothing need be fetched for ruler@base-noise:tasks=generated")
    assert ruler(tasks="generated", data=str(tmp_path)).protocol.count("; ") >= 2


def test_the_release_of_evalplus_is_found_under_its_own_name(tmp_path: Path) -> None:
    row = {
        "task_id": "Set/7", "prompt": "def add(a):\n", "entry_point": "add", "canonical_solution": "    return a\n",
        "atol": 0, "base_input": [[1]], "plus_input": [[2]],
    }  # fmt: skip
    source = Source("code/set.jsonl", 1, "Apache-2.0", "", "", "", dict, also=("Set-v1.jsonl",))
    more: dict[str, Any] = {"url": "U", "rules": {}, "typed": lambda task_id, inputs: inputs, "description": "D"}
    make, protocols = evalplus.make, {"chat": evalplus.chat("C")}
    assert refused(DataError, make, "s", source, protocols, "", str(tmp_path), **more).startswith("data is ")
    assert refused(DataError, make, "s", source, protocols, "", "", **more) == (
        "s needs set.jsonl: fetch U and give data=FILE or its folder"
    )
    written(tmp_path / "Set-v1.jsonl", row)
    (task,) = make("s", source, protocols, "", str(tmp_path), **more).tasks(0)
    assert task.secret["inputs"] == {"base": "[[1]]", "plus": "[[2]]"}
    written(tmp_path / "code" / "set.jsonl", {**row, "task_id": "Set/8"})
    assert [task.id for task in make("s", source, protocols, "", str(tmp_path), **more).tasks(0)] == ["Set/8"]


def test_the_examples_of_ones_own_benchmark_have_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("place,town\nPérou,Lima\n".encode("latin-1"))
    (tmp_path / "shown.csv").write_bytes("place,town\nCôte,Abidjan\nBrésil,Brasília\n".encode("latin-1"))
    path = tmp_path / "mine.toml"
    about = 'data = "t.csv"\nprompt = "Of {place}?"\ntarget = "{town}"\nshots = 2\nexamples = "shown.csv"\n'
    path.write_text(about + 'encoding = "latin-1"\n')
    (task,) = read_benchmark(path).tasks(0)
    assert task.prompt == "Of Côte? Abidjan\n\nOf Brésil? Brasília\n\nOf Pérou?"
    path.write_text(about)
    assert refused(DataError, read_benchmark, path)


def test_text_games_go_up_to_ten_thousand_and_act_as_is_asked() -> None:
    for level in (1, 3):
        assert len(textworld(level=level, tasks=10_000).tasks(0)) == 10_000
    assert len(textworld(tasks=1).tasks(0)) == 1
    for actions, rounds in (("native", 7), ("text", 30)):
        make = textworld(rounds=rounds, actions=actions).environment  # type: ignore[arg-type]
        assert make is not None
        made = make(Task("t", "", secret={"path": "/a/game.z8"}))
        assert isinstance(made, WorldEnvironment) and (made.actions, made.limit) == (actions, rounds)
        assert made.world.path == Path("/a/game.z8")  # type: ignore[attr-defined]
