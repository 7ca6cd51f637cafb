"""AgentBench's lateral thinking puzzles: the game, its two hosts, and the workbook that holds the puzzles."""

import asyncio
import os
import zipfile
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench_ltp import agentbench_ltp
from firsthand.benchmarks.sources.xlsx_rows import xlsx_rows
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace
from firsthand.worlds.players import play
from firsthand.worlds.puzzles.puzzle import Puzzle, read_puzzle
from firsthand.worlds.puzzles.puzzle_judge import ModelHost, RuleHost, content_words, is_negated, verdict_by_rules

SHARED = (
    Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "agents" / "agentbench"
)
REAL = SHARED / "lateralthinkingpuzzle" / "standard.xlsx"
STORY = "A man orders soup at the harbour, tastes it and weeps. Why?"
TRUTH = (
    "He was shipwrecked years ago. The captain cooked albatross, he said. The soup tastes different, so it was none."
)
ROW = (
    STORY,
    TRUTH,
    "1. A man orders soup at the harbour.\n2. He weeps.",
    "1. The man was shipwrecked years ago.\n2. The captain cooked a meal for him.\n\n- The meal was not albatross.",
)
PUZZLE = read_puzzle(ROW, "here")


def workbook(path: Path, rows: list[tuple[str, ...]], **parts: str) -> Path:
    """A workbook with these rows as inline and shared strings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = [cell for row in rows for cell in row]
    shared = "".join(f"<si><t>{cell}</t></si>" for cell in flat)
    cells, number = [], 0
    for row in rows:
        line = ""
        for column in range(len(row)):
            line += f'<c r="{chr(65 + column)}1" t="s"><v>{number}</v></c>'
            number += 1
        cells.append(f"<row>{line}</row>")
    name = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/sharedStrings.xml", parts.get("strings", f"<sst {name}>{shared}</sst>"))
        sheet = f"<worksheet {name}><sheetData>{''.join(cells)}</sheetData></worksheet>"
        archive.writestr("xl/worksheets/sheet1.xml", parts.get("sheet", sheet))
    return path


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """The benchmark on one puzzle of our own, with six rounds."""
    folder = tmp_path_factory.mktemp("puzzles")
    workbook(folder / "lateralthinkingpuzzle" / "standard.xlsx", [("story", "answer", "keys", "keys"), ROW])
    return agentbench_ltp(data=str(folder), rounds=6)


def attempt(benchmark: Benchmark, *questions: str) -> Trace:
    model = Scripted([f"Thought: hm.\nAction: {question}" for question in questions])
    agent = Agent("a", model, thought_action, {"constrained": False})
    return asyncio.run(rollout(agent, benchmark.tasks(0)[0], benchmark=benchmark))


def told(trace: Trace) -> list[str]:
    return [call.detail["result"].split("\n")[0] for call in trace.calls if call.kind == "tool"]


def test_points_are_found_one_by_one_and_the_game_ends_with_the_last(puzzles: Benchmark):
    trace = attempt(
        puzzles, "Was he shipwrecked years ago?", "Had the captain cooked that meal?", "Was the meal no albatross?"
    )
    assert told(trace) == ["Yes.", "Yes.", "Yes."] and trace.value() == 1 and trace.final_state["ended"] == "won"
    detail = trace.scores[0].detail
    assert (detail["accuracy"], detail["efficiency"], detail["relevance"]) == (0.5, 0.5, 0.5)


def test_progress_is_the_share_of_points_that_were_found(puzzles: Benchmark):
    trace = attempt(
        puzzles,
        "Was he shipwrecked years ago?",
        "Was the meal albatross?",
        "Does he like football and tennis?",
        "Is he a man at the harbour?",
        "Was he never shipwrecked years ago?",
        "Did the waiter insult him loudly?",
    )
    assert told(trace)[:3] == ["Yes.", "No.", "Irrelevant."] and told(trace)[4] == "No."
    assert told(trace)[3] == "This information is already in the story, please ask a new question."
    assert trace.value() == pytest.approx(1 / 3) and trace.final_state["ended"] == "rounds"
    assert trace.final_state["result"]["asked"] == 6 and trace.scores[0].detail["reason"] == "limit"


def test_two_parts_of_a_point_find_it_together(puzzles: Benchmark):
    trace = attempt(puzzles, "Was it the captain?", "Was it cooked as a meal?", "a?", "b?", "c?", "d?")
    assert told(trace)[:2] == ["Yes.", "Yes."] and trace.final_state["result"]["found"] == 1


def test_leaving_the_game_and_asking_why_are_strikes_that_end_it(puzzles: Benchmark):
    trace = attempt(puzzles, "Why does he weep?", "Let us play a new game", "What happened?", "Was it soup?")
    assert trace.final_state["ended"] == "aborted" and trace.final_state["invalid_actions"] == 3
    assert "make a guess of your own" in told(trace)[0] and "the game goes on" in told(trace)[1]
    repeated = attempt(puzzles, *["Does he like tennis?"] * 6)
    assert repeated.final_state["ended"] == "aborted" and "already been asked" in told(repeated)[1]


@pytest.mark.parametrize("question", ["", "?!", "x" * 501, "   "])
def test_what_is_no_question_is_told_so(puzzles: Benchmark, question: str):
    trace = attempt(puzzles, question, *["Does he like tennis?"] * 5)
    assert trace.final_state["invalid_actions"] == 1 and 'with "yes", "no" or "irrelevant"' in told(trace)[0]


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        ("Was the man shipwrecked?", "yes"),
        ("Wasn't the man shipwrecked?", "no"),
        ("Was the meal albatross?", "no"),
        ("Was the meal not albatross?", "yes"),
        ("Did a dog bite the postman in the garden?", "irrelevant"),
        ("Did the captain sell the ring at the market?", "irrelevant"),
        ("Did the captain taste different soup there?", "no"),
        ("Is it so?", "irrelevant"),
    ],
)
def test_rules_answer_by_shares_of_words_and_denials(question: str, verdict: str):
    assert verdict_by_rules(PUZZLE, question) == verdict


def test_words_are_compared_by_stem_and_chinese_by_pairs_of_characters():
    assert content_words("He was cooking meals") == content_words("They cooked a meal")
    assert content_words("水手哭") == {"水手", "手哭"} and content_words("水") == {"水"}
    assert not is_negated("It is not that nobody came") and is_negated("he doesn't") and is_negated("他没有来")


def test_a_model_hosts_held_to_the_three_words_and_asked_about_each_point():
    model = Scripted(["yes", "no", "yes", "no", "irrelevant"])
    host = ModelHost(model)
    first = asyncio.run(host.answer(PUZZLE, "Was he shipwrecked?", [], [0, 1, 2]))
    assert first == ("yes", (1,)) and len(model.asked) == 4
    assert model.asked[0].sampling is not None and model.asked[0].sampling.grammar is not None
    assert asyncio.run(host.answer(PUZZLE, "Is it raining?", [], [0])) == ("irrelevant", ())
    assert host.tokens > 0


@pytest.mark.parametrize("actions", ["text", "native"])
def test_the_optimal_player_finds_all_points(tmp_path: Path, actions: str):
    workbook(tmp_path / "standard.xlsx", [("story", "answer", "keys", "keys"), ROW])
    benchmark = agentbench_ltp(data=str(tmp_path), actions=actions)  # type: ignore[arg-type]
    assert asyncio.run(play(benchmark, benchmark.tasks(0)[0], "optimal")).value() == 1


def test_a_workbook_that_is_damaged_hostile_or_short_is_refused_by_name(tmp_path: Path):
    good = workbook(tmp_path / "a.xlsx", [("x", "y"), ("1", "2")])
    assert xlsx_rows(good) == [["x", "y"], ["1", "2"]]
    (tmp_path / "text.xlsx").write_text("no workbook")
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><sst/>'
    cases = {
        "text.xlsx": "no XLSX workbook",
        workbook(tmp_path / "b.xlsx", [("x",)], strings=bomb).name: "document type",
        workbook(
            tmp_path / "c.xlsx", [("x",)], sheet='<w><row><c t="s"><v>1</v></c></row></w>'
        ).name: "refers to string",
        workbook(tmp_path / "d.xlsx", [("x",)], sheet='<w><row><c r="ZZZ1"><v>9</v></c></row></w>').name: "columns",
        workbook(tmp_path / "e.xlsx", [("x",)], sheet="<w><row>").name: "damaged",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as error:
            xlsx_rows(tmp_path / name)
        assert name in str(error.value)
    workbook(tmp_path / "standard.xlsx", [("a", "b", "c", "d"), ("story", "", "k", "k")])
    with pytest.raises(DataError, match="row 2: story, answer"):
        agentbench_ltp(data=str(tmp_path))
    with pytest.raises(ConfigError, match="en or zh"):
        agentbench_ltp(language="de")  # type: ignore[arg-type]


@pytest.mark.skipif(not REAL.is_file(), reason="AgentBench's puzzles are not here")
def test_the_real_puzzles_are_read_and_the_optimal_player_finds_all_their_points():
    benchmark = agentbench_ltp(data=str(REAL))
    puzzles = [Puzzle.from_json(task.secret["puzzle"]) for task in benchmark.tasks(0)]
    assert len(puzzles) == 50 and sum(len(puzzle.answer_keys) for puzzle in puzzles) == 229
    traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(0)[::10]]
    assert [trace.value() for trace in traces] == [1] * 5


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        ("alpha beta gamma delta kappa", "yes"),  # three of five words are in the point
        ("not alpha beta gamma delta kappa", "no"),
        ("alpha beta delta kappa sigma", "no"),  # two of five: no point, and 0.4 of the truth
        ("alpha " + " ".join(f"w{letter}" for letter in "abcdefghijklm") + " beta", "irrelevant"),
        (" ".join(["alpha beta gamma 1 2 3 4", *(f"w{letter}" for letter in "abcdefghijklm")]), "no"),  # 7 of 20
        (" ".join(["alpha beta gamma 1 2 3", *(f"w{letter}" for letter in "abcdefghijklmn")]), "irrelevant"),  # 6
        ("wa 1 2 3 4", "no"),  # the truth is no point
        ("omega", "yes"),  # a point of the story counts too
        ("was it", "irrelevant"),
        ("", "irrelevant"),
    ],
)
def test_a_verdict_turns_at_exactly_its_share_of_words(question: str, verdict: str):
    assert verdict_by_rules(Puzzle("s", "1 2 3 4", ("omega",), ("alpha beta gamma",)), question) == verdict


def test_a_point_is_found_at_exactly_its_share_of_words_and_by_the_question_that_touches_it():
    words = ["alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega", "theta", "lambda", "zeta"]
    puzzle = Puzzle("s", "t", ("river", "bank"), (" ".join(words), "river flow"))

    def found(question: str, *known: str, left: tuple[int, ...] = (0, 1)) -> tuple[int, ...]:
        made = asyncio.run(RuleHost().answer(puzzle, question, known, left))
        assert made.verdict == "yes"
        return made.found

    assert found(" ".join(words[:7])) == (0,) and found(" ".join(words[:6])) == ()
    assert found(words[6], " ".join(words[:3]), " ".join(words[3:6])) == (0,), "with what was known before"
    assert found(words[6], " ".join(words[:7]), left=(1,)) == ()
    assert found("bank", " ".join(words)) == (), "the question itself has none of its words"
    assert found("river flow", " ".join(words[:7]), left=(1, 0)) == (1,)
    assert found("river flow " + words[0], "river") == (1,)
