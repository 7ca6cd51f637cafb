"""Texts with what is asked for at a place: needles, keys, gold documents, sessions, and conversations of others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import kv_retrieval, lost_in_middle, needles, sessions
from firsthand.benchmarks.kv_retrieval import KeyValue, KeyValueObject
from firsthand.benchmarks.long_context.haystack import NOISE, Essays, sentences, world
from firsthand.benchmarks.long_context.lengths import Meter
from firsthand.benchmarks.needles import NeedleCell, NeedleTexts
from firsthand.benchmarks.sessions import SessionHistory, SessionSettings, ToldFact
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import derive_seed

LETTERS = Meter(len, "letters")


def test_needles_are_hidden_at_each_depth_of_each_length_longest_and_deepest_first() -> None:
    made = needles.needles(
        lengths="2k,1k", depths="50, 0", samples=2, haystack="noise", count="words*2", protocol="base"
    )
    assert facts(made) == said(
        "needles@base", "string_match_all",
        "One sentence with a number, at each depth of texts of each length (after Kamradt, 2023).",
        "2 tasks per cell; depths 0, 50 %; lengths 1024, 2048 in estimated as words x 2; haystack noise; "
        + needles.PROTOCOLS["base"].describe(), "none needed: generated",
        options={
            "lengths": "2k,1k", "depths": "50, 0", "samples": 2, "haystack": "noise", "count": "estimated as words x 2",
        },
    )  # fmt: skip
    assert [task.id for task in made.tasks(0)] == [
        f"needle-{length}-{depth}-00{number}"
        for number in (0, 1)
        for length in (2048, 1024)
        for depth in ("050", "000")
    ]
    for samples in (0, 1001):
        told = f"samples is {samples}: give 1 to 1,000 tasks per cell"
        assert refused(ConfigError, needles.needles, samples=samples) == told
    told = "haystack is 'hay': give one of world, noise, essays"
    assert refused(ConfigError, needles.needles, haystack="hay") == told
    told = "data is '/x', and the haystack noise is generated: give haystack=essays with it"
    assert refused(ConfigError, needles.needles, haystack="noise", data="/x") == told
    assert needles.parse_depths(" 7,100,7,0") == (0, 7, 100)
    for text in ("101", "", "1,", "-1", "1.5", "0100"):
        told = f"depths is {text!r}: give percents from 0 to 100, such as 0,25,50,75,100"
        assert refused(ConfigError, needles.parse_depths, text) == told


def test_a_needle_with_its_haystack_fits_its_length() -> None:
    texts = NeedleTexts(LETTERS, "noise", None, 4096, 6)
    rng = Random(derive_seed("needles", 6, 3))
    key = "".join(map(rng.choice, ("BDFGKLMNPRSTVZ", "aeiou", "lmnrst", "aeiou"))) + "wick"
    value = str(rng.randint(10**6, 10**7 - 1))
    hidden = texts.hidden(3)
    assert hidden == ((NOISE,) * 1024, key, value)
    query, said_ = "Of {key}:{context}.", f"The number of the locker in {key} is {value}."
    fixed = len(f"Of {key}:.") + 32
    sizes = {size: fixed + len(said_) + size * (len(NOISE) + 1) for size in range(1, 12)}
    for length, size in ((sizes[4], 4), (sizes[5] - 1, 4), (sizes[1], 1), (sizes[9], 9)):
        assert texts.size(length, 3, query) == size
        for depth, at in ((0, 0), (50, round(size / 2)), (75, (3 * size + 2) // 4), (100, size)):
            context = " ".join([NOISE] * at + [said_] + [NOISE] * (size - at))
            expected = ({"context": context, "key": key}, sizes[size])
            assert texts.fields(NeedleCell(length, 3, depth), query) == expected
    told = (
        f"a needle with its question does not fit {sizes[1] - 1} tokens: it takes {sizes[1]}, the answer's "
        f"included; give "
        "longer lengths"
    )
    assert refused(ConfigError, texts.size, sizes[1] - 1, 3, query) == told
    task = needles._task(needles.PROTOCOLS["chat"], texts, NeedleCell(900, 3, 100))
    fields, tokens = texts.fields(NeedleCell(900, 3, 100), needles.PROTOCOLS["chat"].query)
    assert bodies([task]) == [
        {
            "id": "needle-900-100-003",
            "prompt": needles.PROTOCOLS["chat"].query.replace("{context}", fields["context"]).replace("{key}", key),
            "sampling": {"stop": (), "max_tokens": 32, "temperature": 0.0},
            "verbatim": True,
            "metadata": {"length": 900, "depth": 100, "tokens": tokens, "cluster": "haystack-3"},
            "secret": {"answers": [value]},
        }
    ]
    short = NeedleTexts(LETTERS, "noise", None, 8, 6)  # two sentences are all that there is
    assert short.size(10_000, 3, query) == 2
    odd = NeedleTexts(
        Meter(lambda text: len(text) + 300 * text.startswith("Of " + key + ":The number"), "x"), "noise", None, 4096, 6
    )
    assert odd.size(sizes[5], 3, query) == 5 and odd.fields(NeedleCell(sizes[5], 3, 0), query)[1] == sizes[1] + 300
    assert odd.fields(NeedleCell(sizes[1], 3, 0), query)[1] == sizes[1] + 300  # one sentence is the least


def test_haystacks_of_essays_begin_anywhere_and_go_round() -> None:
    essays = Essays(("One.", "Two", "words.", "Three!"), "o", "5")
    assert needles.split(essays) == ("One.", "Two words.", "Three!")
    texts = NeedleTexts(LETTERS, "essays", essays, 20, 1)
    first = Random(5).randrange(3)
    cycle = needles.split(essays) * 4
    assert tuple(texts._sentences(Random(5), 5)) == cycle[first : first + 5]
    generated = NeedleTexts(LETTERS, "world", None, 20, 1)
    pages = world(Random(5).randrange(10**6))
    assert list(generated._sentences(Random(5), 3)) == [next(pages) for _ in range(3)]
    assert (
        essays.first(3) == "One. Two words." and essays.first(9) == "One. Two words. Three! One. Two words. Three! One."
    )
    assert essays.first(4) == "One. Two words. Three!" and essays.first(0) == ""
    assert sentences('He said "Go." Then 3 left? (Yes.) no.') == ['He said "Go."', "Then 3 left?", "(Yes.) no."]
    assert sentences("") == [] and sentences("One. ") == ["One. "]


def test_a_key_is_queried_at_each_place_of_its_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    made = kv_retrieval.kv_retrieval(keys=6, examples=2, positions="5,0,2")
    assert facts(made) == said(
        "kv_retrieval", "contains_value",
        "The value of one key in a JSON object of random identifiers (Liu et al., 2023).",
        "6 keys, generated from the seed as by the authors; the key at 0, 2, 5; 2 objects; "
        + kv_retrieval.PROTOCOLS["paper"].describe(), "none needed: generated",
        options={"keys": 6, "positions": [0, 2, 5], "sha256": "", "protocol": ""},
    )  # fmt: skip
    ids = [f"kv6-00{index}-at-00{place}" for index in (0, 1) for place in (5, 2, 0)]
    assert [task.id for task in made.tasks(0)] == ids
    rng = Random(derive_seed("kv_retrieval", 8, 6, 1))
    drawn = [str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(12)]
    pairs = tuple(KeyValue(drawn[at], drawn[at + 1]) for at in range(0, 12, 2))
    queried = rng.choice(pairs)
    assert kv_retrieval.draw(6, 8, 1) == KeyValueObject(pairs, queried)
    moved = [pair for pair in pairs if pair != queried]
    moved.insert(2, queried)
    records = "{" + ",\n ".join(f'"{key}": "{value}"' for key, value in moved) + "}"
    text = kv_retrieval.PROTOCOLS["paper"].query.replace("{records}", records).replace("{key}", queried.key)
    assert bodies([made.tasks(8)[4]]) == [
        {
            "id": "kv6-001-at-002", "prompt": text, "context": text, "verbatim": True,
            "sampling": {"stop": (), "max_tokens": 100, "temperature": 0.0},
            "metadata": {"position": 2, "keys": 6, "cluster": "kv6-001"}, "secret": {"answers": [queried.value]},
        }
    ]  # fmt: skip
    for keys, examples in ((1, 1), (10_001, 1), (2, 0), (2, 10_001)):
        told = f"keys is {keys} and examples {examples}: give 2 to 10,000 keys and 1 to 10,000 examples"
        assert refused(ConfigError, kv_retrieval.kv_retrieval, keys=keys, examples=examples) == told
    assert kv_retrieval.kv_retrieval(keys=2, examples=10_000).options["positions"] == [0, 1]
    assert kv_retrieval.kv_retrieval(keys=9).options["positions"] == [0, 4, 8]
    assert kv_retrieval.kv_retrieval(keys=10_000, examples=1).options["positions"] == [0, 5_000, 9_999]
    assert kv_retrieval.kv_retrieval(keys=75).options["positions"] == [0, 24, 49, 74]


def test_the_authors_objects_are_read_and_checked(tmp_path: Path) -> None:
    records = [["a", "1"], ["b", "2"], ["c", "3"]]
    path = tmp_path / "longctx" / "kv-retrieval-3_keys.jsonl"
    written(
        path, *({"ordered_kv_records": records, "key": key, "value": value} for key, value in (("b", "2"), ("a", "1")))
    )
    made = kv_retrieval.kv_retrieval(keys=3, data=str(tmp_path), protocol="query-aware")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.protocol.startswith(
        "3 keys, the authors' file, 2 of 500 items; the key at 0, 1, 2; 2 objects; the paper's"
    )
    assert made.options == {"keys": 3, "positions": [0, 1, 2], "sha256": digest, "protocol": "query-aware"}
    assert (made.licence, made.name, len(made.tasks(0))) == ("MIT", "kv_retrieval@query-aware", 6)
    assert '{"b": "2",\n "a": "1",\n "c": "3"}' in made.tasks(0)[2].prompt
    assert len(kv_retrieval.kv_retrieval(keys=3, examples=1, data=str(tmp_path)).tasks(0)) == 3
    assert kv_retrieval.kv_retrieval(keys=3, examples=1, data="generated").options["sha256"] == ""
    told = (
        f"data is {str(tmp_path)!r}, which has no kv-retrieval-4_keys.jsonl.gz: put the file of "
        "github.com/nelson-liu/lost-in-the-middle there, or give data=generated"
    )
    assert refused(DataError, kv_retrieval.kv_retrieval, keys=4, data=str(tmp_path)) == told
    four = [*records, ["d", "4"]]  # in the folder of the authors' repository, which has it under its own name
    written(
        tmp_path / "kv_retrieval_data" / "kv-retrieval-4_keys.jsonl",
        {"ordered_kv_records": four, "key": "d", "value": "4"},
    )
    (task,) = kv_retrieval.kv_retrieval(keys=4, positions="1", data=str(tmp_path)).tasks(0)
    assert task.id == "kv4-000-at-001" and '{"a": "1",\n "d": "4",\n "b": "2",' in task.prompt
    good = {"ordered_kv_records": records, "key": "a", "value": "1"}
    expected = "w: 'ordered_kv_records' was expected to be 3 pairs of texts"
    for found in (None, records[:2], [*records, ["d", "4"]], [*records[:2], ["c"]], [*records[:2], ["c", 3]], "abc"):
        assert refused(DataError, kv_retrieval._read, {**good, "ordered_kv_records": found}, "w", 3) == expected
    twice = "w: the queried key is not among the pairs, or a key occurs twice"
    for change in ({"value": "2"}, {"key": "d"}, {"ordered_kv_records": [*records[:2], ["a", "9"]]}):
        assert refused(DataError, kv_retrieval._read, {**good, **change}, "w", 3) == twice


def asked(*gold: int, documents: int = 3, **changes: Any) -> dict[str, Any]:
    ctxs = [{"title": f"T{at}", "text": f"x{at}", "isgold": at in gold} for at in range(documents)]
    return {"question": "Who?", "answers": ["Ann", "A."], "ctxs": ctxs, **changes}


def test_gold_documents_are_moved_where_no_file_has_them(tmp_path: Path) -> None:
    folder = tmp_path / "qa_data" / "3_total_documents"
    first = written(folder / "nq-open-3_total_documents_gold_at_0.jsonl", asked(0), asked(0, question="When?"))
    last = written(folder / "nq-open-3_total_documents_gold_at_2.jsonl", asked(2, question="Last?"))
    made = lost_in_middle.lost_in_middle(documents=3, positions="2,0,1", data=str(tmp_path))
    origin = "3 documents, gold at 0, 1, 2; the authors' files, 2 of 2,655 items"
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, first, last)]
    assert facts(made) == said(
        "lost_in_middle", "best_subspan_em",
        "Question answering with the gold document at each position (Liu et al., 2023).",
        f"{origin}; {lost_in_middle.PROTOCOLS['qa'].describe()}", "CC BY-SA 3.0 (NaturalQuestions, Wikipedia)",
        options={"data": origin, "sha256": hashlib.sha256("".join(digests).encode()).hexdigest(), "protocol": "qa"},
    )  # fmt: skip
    assert [task.id for task in made.tasks(0)] == [
        "nq-0000-at-02", "nq-0000-at-01", "nq-0000-at-00", "nq-0001-at-01", "nq-0001-at-00",
    ]  # fmt: skip
    assert [task.prompt.count("Last?") for task in made.tasks(0)] == [1, 0, 0, 0, 0]
    text = (
        f"{lost_in_middle.ASK}\n\nDocument [1](Title: T1) x1\nDocument [2](Title: T0) x0\nDocument [3](Title: T2) "
        f"x2\n\n"
        "Question: When?\nAnswer:"
    )
    assert bodies([made.tasks(0)[3]]) == [
        {
            "id": "nq-0001-at-01", "prompt": text, "context": text, "verbatim": True,
            "sampling": {"stop": (), "max_tokens": 100, "temperature": 0.0},
            "metadata": {"position": 1, "documents": 3, "cluster": "nq-0001"}, "secret": {"answers": ["Ann", "A."]},
        }
    ]  # fmt: skip
    for limit, count in ((1, 3), (2, 5), (9, 5)):
        given = {"documents": 3, "positions": "0,1,2", "questions": limit, "data": str(tmp_path)}
        assert len(lost_in_middle.lost_in_middle(**given).tasks(0)) == count
    told = "questions is -1: give 1 to 2,655, or 0 for all"
    assert refused(ConfigError, lost_in_middle.lost_in_middle, questions=-1) == told
    told = (
        f"{str(tmp_path)!r} has no nq-open-4_total_documents_gold_at_*.jsonl.gz: give data=FOLDER with the folder "
        f"qa_data of "
        "github.com/nelson-liu/lost-in-the-middle (10, 20 or 30 documents)."
    )
    assert refused(DataError, lost_in_middle._files, 4, (0,), str(tmp_path)) == told
    oracle = written(tmp_path / "qa_data" / "nq-open-oracle.jsonl", asked(documents=1))
    assert refused(DataError, lost_in_middle._files, 4, (0,), str(tmp_path)) == told + (
        " The oracle file is there, so lost_in_middle@oracle and @closedbook can run."
    )
    for data in (str(tmp_path), str(oracle)):
        alone = lost_in_middle.lost_in_middle(protocol="oracle", data=data)
        assert alone.options["data"] == "1 document; the authors' file, 1 of 2,655 items"
        assert alone.tasks(0)[0].metadata == {"position": 0, "documents": 1, "cluster": "nq-0000"}
    closed = lost_in_middle.lost_in_middle(protocol="closedbook-chat", data=str(tmp_path))
    assert (
        closed.options["data"].startswith("no documents; ") and closed.tasks(0)[0].prompt == "Question: Who?\nAnswer:"
    )
    oracle.unlink()
    assert refused(DataError, lost_in_middle._oracle, str(tmp_path)) == (
        f"{str(tmp_path)!r} has no nq-open-oracle.jsonl.gz: give data=FOLDER with the folder qa_data of "
        "github.com/nelson-liu/lost-in-the-middle"
    )


def test_a_question_with_documents_is_checked() -> None:
    assert lost_in_middle.parse_positions("", 10) == (0, 4, 9) and lost_in_middle.parse_positions("3,1,3", 4) == (1, 3)
    for text, documents in (("4", 4), ("", 4), ("1,", 4), ("a", 4), ("-1", 4)):
        told = f"positions is {text!r} with 4 documents: give positions from 0 to 3, such as 0,4,9"
        assert refused(ConfigError, lost_in_middle.parse_positions, text, documents) == told
    for row, told in (
        (asked(0, 2), "w: 2 documents are marked 'isgold', and one was expected"),
        (asked(), "w: 0 documents are marked 'isgold', and one was expected"),
        (asked(0, documents=2), "w: 'ctxs' has 2 documents, and 3 were expected"),
        (asked(0, documents=4), "w: 'ctxs' has 4 documents, and 3 were expected"),
        (asked(ctxs="x"), "w: 'ctxs' has no list of documents, and 3 were expected"),
        (asked(0, answers=[]), "w: 'answers' is '[]', and a list of texts was expected"),
        (asked(0, answers=["a", ""]), "w: 'answers' is \"['a', '']\", and a list of texts was expected"),
        (asked(0, answers="a"), "w: 'answers' is 'a', and a list of texts was expected"),
    ):
        assert refused(DataError, lost_in_middle._item, row, "w", 0, 1, 3) == told
    listed = lost_in_middle._documents(asked(1, documents=4), "w", 3, 4)
    assert [each.title for each in listed] == ["T0", "T2", "T3", "T1"]


def test_sessions_are_limited_and_told() -> None:
    made = sessions.sessions(sessions=1, facts=2, distractors=0, people=1, questions=1, then=100)
    assert facts(made) == said(
        "sessions", "held_value normalised",
        "Facts told, changed and withdrawn over many sessions; questions about now and about then.",
        "version 1, generated: 1 session of 2 facts and 0 distractors about 1 people; 100 % of 1 question about "
        "an earlier "
        "day; the pattern attend; the value must be named, and no other value of the same attribute",
        "none needed: generated",
        options={
            "version": 1, "sessions": 1, "facts": 2, "distractors": 0, "people": 1, "questions": 1, "then": 100,
        },
    )  # fmt: skip
    usual = {"sessions": 20, "facts": 4, "distractors": 6, "people": 6}
    for name, bad, good in (
        ("sessions", (0, 5001), (1, 5000)), ("facts", (0, 51), (1, 50)), ("distractors", (-1, 501), (0, 500)),
        ("people", (0, 13), (1, 12)),
    ):  # fmt: skip
        for value in bad:
            given = {**usual, name: value}
            told = (
                f"sessions is {given['sessions']}, facts {given['facts']}, distractors {given['distractors']} and "
                f"people "
                f"{given['people']}: give 1 to 5,000 sessions, 1 to 50 facts, 0 to 500 distractors and 1 to 12 people"
            )
            assert refused(ConfigError, sessions.sessions, **{name: value}) == told
        assert [sessions.sessions(**{name: value}).options[name] for value in good] == list(good)
    for name, bad, good in (("questions", (0, 10_001), (1, 10_000)), ("then", (-1, 101), (0, 100))):
        for value in bad:
            given = {"questions": 40, "then": 50, name: value}
            told = (
                f"questions is {given['questions']} and then {given['then']}: give 1 to 10,000 questions and 0 to 100 "
                "percent"
            )
            assert refused(ConfigError, sessions.sessions, **{name: value}) == told
        assert [sessions.sessions(**{name: value}).options[name] for value in good] == list(good)


def test_a_question_about_sessions_knows_the_value_then_and_the_wrong_ones() -> None:
    told = (
        ToldFact(0, "Ann", "car", "Fiat", None), ToldFact(1, "Ann", "dentist", "Ruh", None),
        ToldFact(2, "Ann", "car", "Seat", "Fiat"), ToldFact(4, "Ann", "car", None, "Seat"),
    )  # fmt: skip
    history = SessionHistory(({},) * 5, told)
    values = [sessions.held_at(history, "Ann", "car", session) for session in range(5)]
    assert values == ["Fiat", "Fiat", "Seat", "Seat", None] and sessions.held_at(history, "Bob", "car", 4) is None
    assert sessions.held_at(history, "Ann", "dentist", 0) is None
    assert [sessions._line(fact) for fact in told] == [
        "The car of Ann is Fiat.", "The dentist of Ann is Ruh.", "The car of Ann is Seat now.",
        "The car of Ann is no longer Seat.",
    ]  # fmt: skip
    assert [sessions.day_of(session) for session in (0, 1, 9)] == ["2026-01-05", "2026-01-08", "2026-02-01"]
    rng, used = Random(0), set[str]()
    syllables = [rng.choice(sessions._SYLLABLES) for _ in range(6)]
    first, second = "".join(syllables[:3]).capitalize(), "".join(syllables[3:]).capitalize()
    used.add(first)
    assert sessions._value(Random(0), used) == second and used == {first, second}
    settings = SessionSettings(6, 3, 1, 2)
    made = sessions.make_history(settings, 4)
    assert made == sessions.make_history.__wrapped__(settings, 4) and len(made.sessions) == 6
    for number in range(12):
        task = sessions._task(settings, 40, 4, number)
        rng = Random(derive_seed("sessions question", 1, 4, *settings, number))
        fact = rng.choice(made.facts)
        is_then = number % 5 in (2, 4)  # 40 % of each five: 0.8 to 1.2, and 1.6 to 2
        session = rng.randrange(6) if is_then else 5
        value = sessions.held_at(made, fact.name, fact.attribute, session)
        values = {each.value for each in made.facts if (each.name, each.attribute) == (fact.name, fact.attribute)}
        day = f" on {sessions.day_of(session)}" if is_then else ""
        assert bodies([task]) == [
            {
                "id": f"seed4-{number:04d}",
                "prompt": f"What {'was' if is_then else 'is'} the {fact.attribute} of {fact.name}{day}?",
                "hint": "the value, or unknown",
                "metadata": {
                    "sessions": made.sessions,
                    "asks": ("then" if is_then else "now") + ("" if value else ", unknown"),
                    "cluster": "seed4",
                },
                "sampling": {"max_tokens": 24, "temperature": 0.0},
                "secret": {"answer": value or "unknown", "wrong": sorted(values - {value, None})},
            }
        ]
    assert {len(session["messages"]) for session in made.sessions} == {4}
    many = sessions.make_history(SessionSettings(1, 50, 0, 1), 0)
    assert len(many.facts) == 8 and [fact.before for fact in many.facts] == [None] * 8
