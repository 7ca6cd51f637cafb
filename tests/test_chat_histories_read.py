"""Long conversations as their authors publish them: sessions in order of time or number, and fields of their types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmark_rows import refused
from firsthand.benchmarks.longmemeval import longmemeval
from firsthand.benchmarks.sources.chat_histories import field_of, iso_time, locomo_sessions, longmemeval_sessions
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task


def test_sessions_are_in_order_of_time_whatever_their_ids() -> None:
    def turn(text: str) -> dict[str, str]:
        return {"role": "user", "content": text}

    record: dict[str, Any] = {
        "haystack_session_ids": ["a", "d", "c", 7, "b"],
        "haystack_dates": [
            "2023/05/20 (Sat) 02:21", "2023/05/20 (Sat) 01:00", "2022/12/31 (Sat) 23:59", "2023/05/20 (Sat) 02:21",
            "2023/05/19",
        ],
        "haystack_sessions": [[turn("1"), {"role": "assistant", "content": "2", "x": 3}], [turn("d")], [], [turn("7")], []],
    }  # fmt: skip
    assert longmemeval_sessions(record, "w") == [
        {"id": "c", "time": "2022-12-31T23:59:00", "messages": []},
        {"id": "b", "time": "2023-05-19T00:00:00", "messages": []},
        {"id": "d", "time": "2023-05-20T01:00:00", "messages": [turn("d")]},
        {"id": "a", "time": "2023-05-20T02:21:00", "messages": [turn("1"), {"role": "assistant", "content": "2"}]},
        {"id": "7", "time": "2023-05-20T02:21:00", "messages": [turn("7")]},
    ]
    empty = {"haystack_session_ids": [], "haystack_dates": [], "haystack_sessions": []}
    assert longmemeval_sessions(empty, "w") == []
    for change, told in (
        ({"haystack_session_ids": []}, "w: 0 ids, 5 dates and 5 sessions are not as many of each"),
        ({"haystack_dates": ["2023/05/20"]}, "w: 5 ids, 1 dates and 5 sessions are not as many of each"),
        ({"haystack_sessions": [[]] * 6}, "w: 5 ids, 5 dates and 6 sessions are not as many of each"),
        ({"haystack_session_ids": None}, "w: 'haystack_session_ids' is None, and list was expected"),
        ({"haystack_dates": "d"}, "w: 'haystack_dates' is 'd', and list was expected"),
        ({"haystack_sessions": {}}, "w: 'haystack_sessions' is {}, and list was expected"),
        ({"haystack_sessions": [[{"role": 1, "content": "a"}]] * 5}, "w: 'role' is 1, and str was expected"),
        ({"haystack_sessions": [["hello"]] * 5}, "w: 'hello' is there, and an object with 'role' was expected"),
        ({"haystack_sessions": [None] * 5}, "w: the session 'a' is None, and a list of turns was expected"),
        (
            {"haystack_sessions": [{"role": 1}] * 5},
            "w: the session 'a' is {'role': 1}, and a list of turns was expected",
        ),
        ({"haystack_sessions": [[{"role": "user"}]] * 5}, "w: 'content' is None, and str was expected"),
        (
            {"haystack_dates": [3] * 5},
            "w: '3' is no date such as 2023/05/20 (Sat) 02:21 or 1:56 pm on 8 May, 2023",
        ),
    ):
        assert refused(DataError, longmemeval_sessions, {**record, **change}, "w") == told


def test_sessions_of_two_speakers_are_in_order_of_number_with_their_captions() -> None:
    def said(speaker: str, text: str, id: str, **more: str) -> dict[str, str]:
        return {"speaker": speaker, "text": text, "dia_id": id, **more}

    talk: dict[str, Any] = {
        "speaker_a": "Ann",
        "session_10": [said("Ann", "x", "D10:1", blip_caption="")],
        "session_10_date_time": "12:00 am on 1 January, 2023",
        "session_9": [said("Bob", "look", "D9:1", blip_caption="a dog"), said("Ann", "", "D9:2")],
        "session_9_date_time": "1:56 pm on 8 May, 2023",
        "session_11_date_time": "2023-01-01",
        "session_10_summary": 3,
        "session_12345": [],
    }
    assert locomo_sessions(talk, "w") == [
        {
            "id": "session_9", "time": "2023-05-08T13:56:00",
            "messages": [
                {"role": "Bob", "content": "look [shares an image: a dog]", "id": "D9:1"},
                {"role": "Ann", "content": "", "id": "D9:2"},
            ],
        },
        {
            "id": "session_10", "time": "2023-01-01T00:00:00",
            "messages": [{"role": "Ann", "content": "x", "id": "D10:1"}],
        },
    ]  # fmt: skip
    one = {"session_1": [said("A", "t", "D1:1")], "session_1_date_time": "2023-01-01"}
    assert len(locomo_sessions(one, "w")) == 1
    for change, told in (
        ({"session_1": {}}, "w: 'session_1' is {}, and list was expected"),
        ({"session_1_date_time": None}, "w: 'session_1_date_time' is None, and str was expected"),
        ({"session_1": [{"speaker": "A", "dia_id": "D"}]}, "w: 'text' is None, and str was expected"),
        ({"session_1": [{"text": "t", "dia_id": "D"}]}, "w: 'speaker' is None, and str was expected"),
        ({"session_1": [{"text": "t", "speaker": "A"}]}, "w: 'dia_id' is None, and str was expected"),
    ):
        assert refused(DataError, locomo_sessions, {**one, **change}, "w") == told


def test_a_field_of_another_type_is_told_in_sixty_characters() -> None:
    assert field_of({"a": 0}, "a", (str, int), "w") == 0 and field_of({"a": []}, "a", list, "w") == []
    told = f"w: 'a' is {str(['x' * 80])[:60]}, and str or int was expected"
    assert refused(DataError, field_of, {"a": ["x" * 80]}, "a", (str, int), "w") == told
    told = f"w: '{'y' * 59} is no date such as 2023/05/20 (Sat) 02:21 or 1:56 pm on 8 May, 2023"
    assert refused(DataError, iso_time, "y" * 80, "w") == told
    assert iso_time("12:30 am on 5 Sep, 2022", "w") == "2022-09-05T00:30:00"


def question(**changes: Any) -> dict[str, Any]:
    return {
        "question_id": "q1", "question_type": "kind", "question": "Where?", "answer": "Oslo",
        "question_date": "2023/05/30 (Tue) 02:21", "haystack_session_ids": ["s1"], "haystack_dates": ["2023/05/20"],
        "haystack_sessions": [[{"role": "user", "content": "I live in Oslo."}]], "answer_session_ids": ["s1"], **changes,
    }  # fmt: skip


def asked(folder: Path, *records: dict[str, Any]) -> list[Task]:
    (folder / "longmemeval_s.json").write_text(json.dumps(records))
    return list(longmemeval(data=str(folder)).tasks(0))


def test_a_question_of_longmemeval_is_a_task_whatever_the_type_of_its_answer(tmp_path: Path) -> None:
    (first,) = asked(tmp_path, question())
    session = {"id": "s1", "time": "2023-05-20T00:00:00", "messages": [{"role": "user", "content": "I live in Oslo."}]}
    assert first == Task(
        "q1", "(Asked on 2023-05-30.) Where?", metadata={"sessions": [session], "type": "kind", "abstention": False},
        sampling={"max_tokens": 128, "temperature": 0.0}, secret={"answer": "Oslo", "evidence": ["s1"]},
    )  # fmt: skip
    for given, kept in (("", ""), (3, "3"), (0, "0"), (2.5, "2.5"), (-0.125, "-0.125"), ("2.50", "2.50")):
        assert [each.secret for each in asked(tmp_path, question(answer=given))] == [
            {"answer": kept, "evidence": ["s1"]}
        ]
    for id, abstains in (("q_abs", True), ("_abs", True), ("q_abs1", False), ("abs", False)):
        (made,) = asked(tmp_path, question(question_id=id))
        assert (made.id, made.metadata["abstention"], made.secret["evidence"]) == (
            id,
            abstains,
            ["s1"] * (not abstains),
        )
    assert asked(tmp_path, question(question_id="q_abs", answer_session_ids=None))[0].secret["evidence"] == []


def test_a_question_of_longmemeval_that_lacks_a_field_is_named_by_its_file_and_number(tmp_path: Path) -> None:
    where = f"{tmp_path / 'longmemeval_s.json'}, question 2"
    for name, value, told in (
        ("answer", None, "'answer' is None, and str or int or float was expected"),
        ("answer", ["Oslo"], "'answer' is ['Oslo'], and str or int or float was expected"),
        ("question_id", 7, "'question_id' is 7, and str was expected"),
        ("question_type", None, "'question_type' is None, and str was expected"),
        ("question", 2.5, "'question' is 2.5, and str was expected"),
        ("question_date", None, "'question_date' is None, and str was expected"),
        ("answer_session_ids", "s1", "'answer_session_ids' is 's1', and list was expected"),
    ):
        assert refused(DataError, asked, tmp_path, question(), question(**{name: value})) == f"{where}: {told}"


def test_each_split_of_longmemeval_is_the_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, folder in (("oracle", tmp_path), ("s", tmp_path / "data"), ("m", tmp_path)):
        path = folder / f"longmemeval_{split}.json"
        path.write_text(json.dumps([question(question_id=split), question()]))
        for data in (tmp_path, path):
            made = longmemeval(data=str(data), split=split)
            assert [task.id for task in made.tasks(0)] == [split, "q1"] == [task.id for task in made.tasks(5)]
            assert (made.name, made.licence, made.options) == ("longmemeval", "MIT", {"split": split})
            assert made.protocol == (
                f"longmemeval_{split}.json, 2 questions; the pattern attend; contains_words is a lower bound of the "
                "paper's judged accuracy, and abstention questions need a judge"
            )
    assert [task.id for task in longmemeval(data=str(tmp_path)).tasks(0)] == ["s", "q1"]
    told = "split is 'l': give one of oracle, s, m"
    assert refused(ConfigError, longmemeval, data=str(tmp_path), split="l") == told
