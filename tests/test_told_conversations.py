"""Long conversations, authors' pairs and the Tree of Thoughts paper's data, read from small files of their form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import creative, crosswords, game24, locomo, longmemeval, nested_kv
from firsthand.benchmarks.nested_kv import AuthorsPairs
from firsthand.benchmarks.sources import chat_histories, tot_data
from firsthand.benchmarks.sources.tot_data import PaperFile
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task
from firsthand.trace import Event, Score, Trace

TURN = {"speaker": "Ann", "text": "Hi", "dia_id": "D1:1"}
CONVERSATION: dict[str, Any] = {
    "session_10": [TURN], "session_10_date_time": "1:56 pm on 8 May, 2023", "speaker_a": "Ann",
    "session_2": [{**TURN, "blip_caption": "a dog", "speaker": "Bob"}],
    "session_2_date_time": "12:05 am on 9 December, 2022",
}  # fmt: skip
SESSIONS = [
    {"id": "session_2", "time": "2022-12-09T00:05:00",
     "messages": [{"role": "Bob", "content": "Hi [shares an image: a dog]", "id": "D1:1"}]},
    {"id": "session_10", "time": "2023-05-08T13:56:00", "messages": [{"role": "Ann", "content": "Hi", "id": "D1:1"}]},
]  # fmt: skip


def put(path: Path, body: Any) -> Path:
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return path


def asked(category: Any, **more: Any) -> dict[str, Any]:
    return {"question": f"Q{category}?", "category": category, "answer": 2022, **more}


def test_locomos_questions_are_of_the_categories_that_are_wanted(tmp_path: Path) -> None:
    first = {
        "sample_id": "conv-7",
        "conversation": CONVERSATION,
        "qa": [asked(1, evidence=["D1:1"]), asked(5), asked(3)],
    }
    second = {"conversation": {}, "qa": [asked(5, evidence=None)]}
    path = put(tmp_path / "locomo10.json", [first, second])
    made = locomo.locomo(data=str(tmp_path), categories="513")
    assert facts(made) == said(
        "locomo", "locomo_f1 evidence_recall",
        "Questions about very long conversations of two people (Maharana et al., 2024).",
        "locomo10.json, 4 questions of categories 513; the pattern attend; the authors' F1", "CC BY-NC 4.0",
        options={"categories": "513"},
    )  # fmt: skip
    sampling = {"max_tokens": 64, "temperature": 0.0}
    assert bodies(made.tasks(0))[:2] == [
        {
            "id": f"conv-7-00{number}", "prompt": f"Q{category}?", "sampling": sampling,
            "metadata": {"sessions": SESSIONS, "type": kind, "cluster": "conv-7"},
            "secret": {"answer": answer, "category": category, "evidence": evidence},
        }
        for number, category, kind, answer, evidence in (
            (0, 1, "multi-hop", "2022", ["D1:1"]), (1, 5, "adversarial", "", []),
        )
    ]  # fmt: skip
    assert [task.id for task in made.tasks(0)] == ["conv-7-000", "conv-7-001", "conv-7-002", "1-000"]
    assert made.tasks(0)[3].metadata == {"sessions": [], "type": "adversarial", "cluster": "1"}
    assert [task.id for task in locomo.locomo(data=str(path), categories="3").tasks(0)] == ["conv-7-002"]
    for categories in ("", "6", "1,2"):
        told = f"categories is {categories!r}: give digits from 1 to 5, such as 1234"
        assert refused(ConfigError, locomo.locomo, categories=categories) == told
    for wrong in (6, None, "x"):
        put(path, [first, {"qa": [asked(1), {"category": wrong}]}])
        told = f"{path}, sample 2, question 2: a category from 1 to 5 was expected"
        assert refused(DataError, locomo.locomo, data=str(tmp_path)) == told
    put(path, [{"qa": {}}])
    told = f"{path}, sample 1: 'qa' is {{}}, and list was expected"
    assert refused(DataError, locomo.locomo, data=str(tmp_path)) == told
    put(path, [{"qa": [asked(1, answer=["a"])], "conversation": {}}])
    told = f"{path}, sample 1: 'answer' is ['a'], and str or int or float was expected"
    assert refused(DataError, locomo.locomo(data=str(tmp_path)).tasks(0).__getitem__, 0) == told


def test_longmemevals_sessions_are_sorted_by_time_and_abstentions_have_no_evidence(tmp_path: Path) -> None:
    record = {
        "question_id": "q7", "question_date": "2023/05/30 (Tue) 23:40", "question": "Which?", "question_type": "update",
        "answer": 3, "answer_session_ids": ["s1"], "haystack_session_ids": ["s2", 1],
        "haystack_dates": ["2023/05/21 (Sun) 02:21", "2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [[{"role": "user", "content": "Hi", "x": 1}], []],
    }  # fmt: skip
    put(tmp_path / "longmemeval_oracle.json", [record, {**record, "question_id": "q8_abs"}])
    made = longmemeval.longmemeval(data=str(tmp_path), split="oracle")
    assert facts(made) == said(
        "longmemeval", "contains_words evidence_recall evidence_all",
        "Questions about long chat histories: extraction, updates, time, several sessions, abstention.",
        "longmemeval_oracle.json, 2 questions; the pattern attend; contains_words is a lower bound of the "
        "paper's judged "
        "accuracy, and abstention questions need a judge", "MIT", options={"split": "oracle"},
    )  # fmt: skip
    sessions = [
        {"id": "1", "time": "2023-05-20T02:21:00", "messages": []},
        {"id": "s2", "time": "2023-05-21T02:21:00", "messages": [{"role": "user", "content": "Hi"}]},
    ]
    assert bodies(made.tasks(0)) == [
        {
            "id": id, "prompt": "(Asked on 2023-05-30.) Which?", "sampling": {"max_tokens": 128, "temperature": 0.0},
            "metadata": {"sessions": sessions, "type": "update", "abstention": abstains},
            "secret": {"answer": "3", "evidence": evidence},
        }
        for id, abstains, evidence in (("q7", False, ["s1"]), ("q8_abs", True, []))
    ]  # fmt: skip
    told = "split is 'l': give one of oracle, s, m"
    assert refused(ConfigError, longmemeval.longmemeval, split="l") == told
    uneven = {**record, "haystack_dates": record["haystack_dates"][:1]}
    told = "w: 2 ids, 1 dates and 2 sessions are not as many of each"
    assert refused(DataError, chat_histories.longmemeval_sessions, uneven, "w") == told


def test_dates_and_records_of_conversations_are_read_or_refused(tmp_path: Path) -> None:
    for text, found in (
        (" 2023/05/20 (Sat) 02:21 ", "2023-05-20T02:21:00"), ("12:09 pm on 3 Jun, 2023", "2023-06-03T12:09:00"),
        ("2023-05-20", "2023-05-20T00:00:00"), ("2023/05/20", "2023-05-20T00:00:00"),
    ):  # fmt: skip
        assert chat_histories.iso_time(text, "w") == found
    told = "w: '2023/13/20' is no date such as 2023/05/20 (Sat) 02:21 or 1:56 pm on 8 May, 2023"
    assert refused(DataError, chat_histories.iso_time, "2023/13/20", "w") == told
    assert chat_histories.field_of({"a": ""}, "a", str, "w") == ""
    told = "w: 'a' is None, and str was expected"
    assert refused(DataError, chat_histories.field_of, {}, "a", str, "w") == told
    for body in ("{}", "[]", "[1]", "[{}, 2]"):
        path = put(tmp_path / "r.json", body)
        assert (
            refused(DataError, chat_histories.read_records, path) == f"{path} was expected to be a JSON list of objects"
        )
    told = refused(DataError, chat_histories.read_records, put(path, "["))
    assert told.startswith(f"{path} is not JSON: Expecting value")
    assert chat_histories.read_records(put(path, [{"a": 1}])) == [{"a": 1}]
    assert chat_histories.locomo_sessions({"session_x": 1, "session_1_date": 2, "asession_1": 3}, "w") == []


def test_authors_orderings_nest_their_pairs(tmp_path: Path) -> None:
    pairs = [[f"k{at}", f"v{at}"] for at in range(8)]
    path = written(tmp_path / "data" / "kv-retrieval-140_keys.jsonl", {"ordered_kv_records": pairs}, {"x": 1})
    for hop, lines in ((1, "[5, 2]\n\n[0, 7]\n"), (2, "[3, 1, 4]\n")):
        put(tmp_path / f"random_orderings_100_samples_140_indices_{hop}_levels.jsonl", lines)
    found = nested_kv.authors_pairs(tmp_path, 2)
    assert found == AuthorsPairs(tuple(map(tuple, pairs)), {1: ((5, 2), (0, 7)), 2: ((3, 1, 4),)})
    made = nested_kv.nested_kv(hops="1-2", keys=8, examples=3, data=str(tmp_path))
    assert made.licence == "Apache-2.0" and made.protocol.startswith(
        "the authors' pairs and orderings: 8 pairs, behind "
    )
    chains = [task.metadata["pairs"] for task in made.tasks(0)]
    assert [(each["k5"], each["k0"]) for each in chains[:3]] == [("k2", "v0"), ("v5", "k7"), ("k2", "v0")]
    assert (chains[3]["k3"], chains[3]["k1"], chains[3]["k4"]) == ("k1", "k4", "v4")
    assert [task.secret["answer"] for task in made.tasks(0)] == ["v2", "v7", "v2", "v4", "v4", "v4"]
    assert "for the following key: k3. Answer only" in made.tasks(0)[3].prompt
    for keys in (7, 9):
        told = f"keys is {keys}, and the authors' file has 8: leave keys out"
        assert refused(ConfigError, nested_kv.nested_kv, hops="1", keys=keys, data=str(tmp_path)) == told
    name = "random_orderings_100_samples_140_indices_3_levels.jsonl"
    told = f"data is {str(tmp_path)!r}, which has no {name}: put the authors' folder there"
    assert refused(DataError, nested_kv.authors_pairs, tmp_path, 3) == told
    for line in ("[0, 8]", "[]", "[true]", "{}", "x", "[-1]"):
        put(tmp_path / name, f"[0]\n{line}\n")
        told = f"{tmp_path / name}, line 2: a list of indices below 8 was expected"
        assert refused(DataError, nested_kv.authors_pairs, tmp_path, 3) == told
    for records in (None, [["a"]], [["a", 1]], [["a", "b", "c"]]):
        written(path, {"ordered_kv_records": records})
        told = f"{path}, line 1: 'ordered_kv_records' was expected to be pairs of texts"
        assert refused(DataError, nested_kv.authors_pairs, tmp_path, 0) == told
    written(path, {"ordered_kv_records": pairs})
    for at, where in enumerate(("data", "", "data")):  # as the authors' folder has them, as loose files, and both
        folder = tmp_path / f"theirs-{min(at, 1)}"
        (folder / where).mkdir(parents=True, exist_ok=True)
        written(folder / where / path.name, {"ordered_kv_records": pairs})
        for hop in (1, 2):
            name = f"random_orderings_100_samples_140_indices_{hop}_levels.jsonl"
            put(folder / where / name, f"[{at}, {hop}]\n")
        assert nested_kv.authors_pairs(folder, 2).orderings == {1: ((min(at, 1), 1),), 2: ((min(at, 1), 2),)}, (
            "a loose file is taken first"
        )
        assert nested_kv.authors_pairs(folder, 1).orderings == {1: ((min(at, 1), 1),)}
    path.unlink()
    told = f"data is {str(tmp_path)!r}, which has no kv-retrieval-140_keys.jsonl: put "
    told += "paper_experiments/nested_kv_task/data there"
    assert refused(DataError, nested_kv.authors_pairs, tmp_path, 0) == told


def attempt(answer: str | None, *events: Event) -> Trace:
    return Trace("t", "b", "t", {}, 0, 0, "", 0.0, answer=answer, events=events)


def test_puzzles_of_24_are_taken_by_rank(tmp_path: Path) -> None:
    path = put(tmp_path / "24.csv", "Rank,Puzzles\n1,1 1 4 6\n2,2 3 4 100\n3,1 2 3\n")
    made = game24.game24(ranks="1-2", data=str(tmp_path))
    origin = "ranks 1 to 2 of 4nums.com (data folder)"
    assert facts(made) == said(
        "game24", "solved solved_by_any", "Make 24 of four numbers (Yao et al., 2023).",
        f"{origin}; exact arithmetic, each number once; any: any of the final states", "MIT (the list), facts",
        options={"ranks": "1-2", "data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    assert made.tasks(0) == [game24.make_task("rank-0001", "1 1 4 6"), game24.make_task("rank-0002", "2 3 4 100")]
    generated = game24.game24(data="generated")
    assert (generated.options, generated.licence) == (
        {"ranks": "", "data": "100 generated puzzles", "sha256": ""}, "none needed: generated",
    )  # fmt: skip
    assert game24._span("7") == (7, 7) and game24._span("1-99999") == (1, 99999)
    for ranks in ("0-5", "5-4", "", "1-", "a", "1-100000"):
        told = f"ranks is {ranks!r}: give a range such as 901-1000"
        assert refused(ConfigError, game24._span, ranks) == told
    told = "data folder, rank-0003: four numbers were expected, not '1 2 3'"
    assert refused(DataError, game24.game24, ranks="3", data=str(tmp_path)) == told
    told = "data folder: a CSV with a column Puzzles and at least 4 rows was expected"
    assert refused(DataError, game24.game24, ranks="4", data=str(tmp_path)) == told
    assert refused(DataError, game24._puzzles, PaperFile("a,b\n1,2\n", "o", ""), 1, 1).startswith(
        "o: a CSV with a column"
    )
    task = game24.make_task("t", "4 6 1 1")
    for answer, value in (
        ("so\nAnswer: 4 * 6 * 1 * 1 = 24", 1.0),
        ("(4*6)/1/1", 1.0),
        ("4 * 6 * 1", 0.0),
        ("4*6*1*1\nno", 0.0),
        (None, 0.0),
    ):
        assert game24.solved(task, attempt(answer)) == Score("solved", value)
    ended = Event("branch", 0.0, {"status": "done", "answer": "4*6*1*1"})
    for event, value in ((ended, 1.0), (Event("branch", 0.0, {"status": "cut", "answer": "4*6*1*1"}), 0.0)):
        assert game24.solved_by_any(task, attempt("1", Event("x", 0.0, {"status": "done"}), event)) == Score(
            "any", value
        )
    assert game24.solved_by_any(task, attempt("4*6*1*1")) == Score("any", 1.0)
    thoughts = game24.thoughts(task)
    assert thoughts.numbers == "4 6 1 1" and thoughts.steps == 4
    assert thoughts.proposed("s\n", ["a\n \nb", "c"]) == ["s\na\n", "s\nb\n", "s\nc\n"]
    assert (
        thoughts.answer("x\nAnswer: 1 + 2 ") == "1 + 2"
        and thoughts.answer("1 + 2 = 3 (left: 3)\n") == "1 + 2 = 3 (left: 3)"
    )
    assert game24.numbers_left("a (left: 1 2)\nb (left: 24)\n") == "24" and game24.numbers_left("4 6 1 1") == "4 6 1 1"
    assert thoughts.valued("", [["sure", "x\nimpossible"], ["likely", "sure"]]) == pytest.approx(20 + 0.001 + 1 + 20)
    assert thoughts.propose("1 + 2 = 24 (left: 24)\n").prompt.endswith("4 6 1 1\nSteps:1 + 2 = 24 (left: 24)\n")
    assert thoughts.propose("").prompt.rstrip().endswith("Input: 4 6 1 1\nPossible next steps:")
    assert thoughts.value("a\nb\nc\nd") == () and len(thoughts.value("a (left: 1 2)")) == 1


def test_a_papers_file_is_given_or_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, env = tmp_path / "given", tmp_path / "env"
    (given / "reasoning").mkdir(parents=True)
    env.mkdir()
    put(given / "reasoning" / "a.txt", "1")
    put(env / "b.txt", "é")
    monkeypatch.setenv("FIRSTHAND_DATA", str(env))

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    names = ("a.txt", "b.txt")
    assert tot_data.find(names, "x", str(given)) == PaperFile("1", "data folder", digest("1"))
    put(given / "b.txt", "2")
    assert tot_data.find(names, "x", str(given)).text == "1" and tot_data.find(names[::-1], "x", str(given)).text == "2"
    assert tot_data.find(names, "x", str(given / "b.txt")).text == "2"
    assert tot_data.find(names, "x", "") == PaperFile("é", "$FIRSTHAND_DATA", digest("é"))
    told = f"data is {str(env)!r}, which has none of c.txt, d.txt: put the file there"
    assert refused(DataError, tot_data.find, ("c.txt", "d.txt"), "x", str(env)) == told
    package = tmp_path / "site" / "tot"
    (package / "data").mkdir(parents=True)
    put(package / "__init__.py", "")
    put(package / "data" / "in.txt", "3")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert tot_data.find(("c.txt",), "in.txt", "").origin == "package tree-of-thoughts-llm"
    assert tot_data.find(("c.txt",), "none.txt", "") is None
    (env / "b.txt").write_bytes(b"a\xff")
    told = f"{env / 'b.txt'} is not UTF-8 text (byte 1): is it the right file?"
    assert refused(DataError, tot_data.find, names, "x", "") == told
    monkeypatch.setattr(tot_data, "MAX_BYTES", 1 << 20)
    put(env / "b.txt", "y" * (1 << 20))
    assert len(tot_data.find(names, "x", "").text) == 1 << 20
    put(env / "b.txt", "y" * ((1 << 20) + 1))
    told = f"{env / 'b.txt'} is larger than 1 MiB: is it the right file?"
    assert refused(DataError, tot_data.find, names, "x", "") == told
    told = f"{tmp_path / 'q'} cannot be read: No such file or directory"
    assert refused(DataError, tot_data._read, tmp_path / "q", "o") == told


def test_passages_are_scored_by_the_ends_of_their_paragraphs(tmp_path: Path) -> None:
    line = 'It was "late". He ran! Why? no end'
    path = put(tmp_path / "tot_text_100.txt", f"{line}\n\nOne. Two.\n")
    made = creative.creative(data=str(tmp_path))
    assert facts(made) == said(
        "creative", "endings", "Four paragraphs with given endings (Yao et al., 2023).",
        "2 inputs (data folder); share of the given sentences that end their paragraph; no judge",
        "MIT (the inputs of tree-of-thought-llm)",
        options={"data": "data folder", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    first, second = made.tasks(0)
    prompt = tot_data.prompts("creative")["direct"].replace("{input}", line).strip()
    assert first == Task(
        "text-000", prompt, verbatim=True, thoughts="creative", metadata={"input": f"{line}\n"},
        secret={"endings": ['It was "late".', "He ran!", "Why?"]},
    )  # fmt: skip
    assert second.id == "text-002" and second.secret == {"endings": ["One.", "Two."]}
    answer = "Plan: x\nPassage:\nSo, IT WAS late.\n\nHe ran! Off.\n\n \n\nwhy?"
    assert creative.endings(first, attempt(answer)) == Score("endings", 2 / 3, {"paragraphs": 3})
    assert creative.endings(second, attempt(None)) == Score("endings", 0.0, {"paragraphs": 0})
    told = "input 4: sentences were expected, not 'no end'"
    assert refused(DataError, creative._task, 3, "no end") == told
    thoughts = creative.thoughts(first)
    assert thoughts.propose("") == thoughts.sample("") and thoughts.sample("").stop == ("\nPassage:\n",)
    assert thoughts.sample("a plan").prompt.endswith("a plan") and thoughts.sample("a plan").stop == ()
    assert (
        thoughts.valued(
            "", [["Thus the coherency score is 7", "no"], ["coherency score is: 10, or coherency score is 4"]]
        )
        == 5.5
    )
    assert thoughts.valued("", [["none"]]) == 0.0 and thoughts.labels == {str(at): float(at) for at in range(1, 11)}
    assert thoughts.proposed("s", ["a", "b"]) == ["sa", "sb"] and thoughts.answer("x Passage:\n y ") == "y"
    assert thoughts.vote(["p", "q"]).prompt.endswith("Choice 1:\np\nChoice 2:\nq\n") and not thoughts.is_done("x")
    (asked_,) = thoughts.value("plan\nPassage:\n It.")
    assert asked_.prompt == tot_data.prompts("creative")["score"] + "It."


def test_crosswords_are_every_fifth_game_or_all(tmp_path: Path) -> None:
    rows = [[[f"c{at} {n}" for n in range(10)], list("abcdefghijklmnopqrstuvwxy")] for at in range(7)]
    path = put(tmp_path / "mini0505.json", rows)
    made = crosswords.crosswords(data=str(tmp_path))
    assert facts(made) == said(
        "crosswords", "words letters game best_words best_letters", "5x5 mini crosswords (Yao et al., 2023).",
        "2 games (test; data folder); share of words, letters and whole games that are right",
        "MIT (the collection of tree-of-thought-llm)",
        options={"games": "test", "data": "data folder", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    assert [task.id for task in made.tasks(0)] == ["game-000", "game-005"]
    assert len(crosswords.crosswords(games="all", data=str(tmp_path)).tasks(0)) == 7
    board = "A B C D E\nF G H I J\nK L M N O\nP Q R S T\nU V W X {}"
    task, right, near = made.tasks(0)[1], attempt(board.format("Y")), attempt(board.format("Z"))
    scorers = (crosswords.words, crosswords.letters, crosswords.game)
    assert [scorer(task, right).value for scorer in scorers] == [1.0, 1.0, 1.0]
    assert [scorer(task, near).value for scorer in scorers] == [0.8, 0.96, 0.0]
    seen = attempt(
        None, Event("branch", 0.0, {"answer": board.format("Z")}), Event("note", 0.0, {"answer": board.format("Y")})
    )
    assert (crosswords.best_words(task, seen).value, crosswords.best_letters(task, seen).value) == (0.8, 0.96)
    thoughts = crosswords.thoughts(task)
    state = "h2. motor\nv1. amend\n"
    assert crosswords.board_of(state) == "A____MOTOREEEEE".replace("EEEEE", "E____") + "N____D____"
    assert thoughts.answer(state) == "A _ _ _ _\nM O T O R\nE _ _ _ _\nN _ _ _ _\nD _ _ _ _" and not thoughts.is_done(
        state
    )
    replies = [
        "h1. abbey (low)\nv2. xoxox (high)\nx",
        "h1. abbey (certain)\nh1. crabs (certain)\nh3. Eagle (medium) no",
    ]
    assert thoughts.proposed(state, replies) == [f"{state}{each}\n" for each in ("h1. abbey", "v2. xoxox", "h3. eagle")]
    assert (
        thoughts.sampled(state, "h1. crabs (low)") == state
        and thoughts.sampled(state, replies[0]) == f"{state}v2. xoxox\n"
    )
    assert sum("c5 1: m o t o r" in request.prompt for request in thoughts.value(state)) == 1
    assert len(thoughts.value(state)) == 2  # a row and a column; one letter is too few
    assert thoughts.valued("", [["sure", "so\nmaybe"], ["impossible"], ["what"]]) == -18.5
    shown = thoughts.shown(state)
    assert shown.startswith(
        "Current Board:\nA____\nMOTOR\nE____\nN____\nD____\n\nUnfilled:\nh1. c5 0: A____\nh3. c5 2: E____\n"
    )
    assert shown.endswith("\nFilled:\nh2. c5 1: MOTOR\nv1. c5 5: AMEND\n\nChanged:\n")
    one = thoughts.sample(state)
    assert one.prompt.endswith("Give one word only.\n") and one.stop == ("\n",) and thoughts.propose("").samples == 8
    assert "h1. c5 0\nh2. c5 1\n" in thoughts.vote([state, ""]).prompt
    for text in ('{"a": 1}', "[[1, 2]]", "[[[], []]]", "{"):
        put(path, text)
        told = refused(DataError, crosswords.crosswords, data=str(tmp_path))
        assert told.startswith("data folder: a list of clues and boards was expected (")
    for clues, letters in ((9, 25), (11, 25), (10, 24), (10, 26)):
        put(path, [[["c"] * clues, ["a"] * letters]])
        told = refused(DataError, crosswords.crosswords, data=str(tmp_path))
        assert told.endswith(f"(game 0 has {clues} clues and {letters} letters)")
