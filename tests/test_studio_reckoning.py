"""Numbers and texts behind the Studio's pages, as whole values: forms, filters, paces, plots, tokens, queues, copies."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio.annotation_queue import AnnotationQueue, Queues, queue_of_form
from firsthand.studio.attempt_query import AttemptQuery, shown_filter
from firsthand.studio.comparison_slices import CostPoint, metadata_keys, scatter_points
from firsthand.studio.found_page import FoundPage
from firsthand.studio.paced_pair import PacedPair
from firsthand.studio.run_export import ExportedCurve, _curves
from firsthand.studio.run_notes import RunNote, RunNotes
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.sweep_facts import Importance, axes_of, importances, ranked
from firsthand.studio.token_colours import entropy_of, laid_out, logprob_step
from firsthand.studio.trace_copies import as_test
from firsthand.studio.typed_filter import Term, holds, parse_filter
from firsthand.studio.views.form_fields import fields_of, form_of
from firsthand.studio.views.query_values import number_of, text_of
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def asked(query: str = "", *chunks: bytes, kind: str = "application/x-www-form-urlencoded") -> Request:
    coming = list(chunks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": coming.pop(0) if coming else b"", "more_body": bool(coming)}

    scope = {
        "type": "http",
        "method": "POST",
        "query_string": query.encode(),
        "headers": [(b"content-type", kind.encode())],
    }
    return Request(scope, receive)


def refusal(function: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as told:
        made = function(*given, **named)
        if asyncio.iscoroutine(made):
            asyncio.run(made)
    return str(told.value)


def test_numbers_and_texts_of_a_query_have_bounds() -> None:
    request = asked("a=7&b=-3&c=&d=--5&e=1e3&f=%D9%A3&g=99&h=" + "1" * 15 + "&i=" + "1" * 16 + "&t=" + "x" * 2000)
    assert [number_of(request, name, 5, 1, 50) for name in "abcg"] == [7, 1, 5, 50]
    assert number_of(request, "missing", -9, 1, 50) == -9, "a default is as it is"
    assert (
        number_of(request, "b", 0) == 0
        and number_of(request, "h", 0) == 1 << 40
        and number_of(request, "b", 0, -9) == -3
    )
    for name, value in (("d", "--5"), ("e", "1e3"), ("f", "٣"), ("i", "1" * 16)):
        assert refusal(number_of, request, name, 0) == f"{name} is {value!r}: a whole number was expected"
    assert text_of(request, "t") == "x" * 2000 and text_of(request, "none") == "" and text_of(request, "a") == "7"
    assert refusal(text_of, asked("t=" + "x" * 2001), "t") == "t has 2,001 characters: at most 2,000 are read"


def test_a_form_has_its_last_values_within_bounds() -> None:
    found = asyncio.run(
        form_of(asked("", b"a=1&b=&a=", b"2&c=%C3%A9+x", kind="application/x-www-form-urlencoded; charset=x"))
    )
    assert found == {"a": "2", "b": "", "c": "é x"}
    assert asyncio.run(fields_of(asked("", b"a=1&a=2"))) == [("a", "1"), ("a", "2")]
    assert asyncio.run(form_of(asked("", b"a=" + b"x" * 1022), 1024)) == {"a": "x" * 1022}
    assert refusal(form_of, asked("", b"a=" + b"x" * 1022, b"y"), 1024) == "the form has more than 1 KiB"
    assert len(asyncio.run(fields_of(asked("", b"&".join([b"a=1"] * 40))))) == 40
    assert refusal(fields_of, asked("", b"&".join([b"a=1"] * 41))) == "the form has more than 40 fields"
    assert refusal(fields_of, asked("", b"a=1", kind="text/plain")) == "the Studio expects the fields of a form"


FIELDS: Any = {"model": "text", "score": "number", "score.": "number"}
FLAGS = {"has": ("error", "note")}


def test_a_filter_is_terms_with_fields_operators_and_values() -> None:
    text = ' score<=0.5 -model:"two  words" has:note score.exact>-1\tw-ord -"a b" model=X -has=error '
    assert parse_filter(text, FIELDS, FLAGS) == (
        Term("score", "<=", "0.5"), Term("model", ":", "two  words", True), Term("has", ":", "note"),
        Term("score.exact", ">", "-1"), Term("", ":", "w-ord"), Term("", ":", "a b", True), Term("model", "=", "X"),
        Term("has", "=", "error", True),
    )  # fmt: skip
    assert (
        parse_filter("x " * 40, FIELDS, FLAGS) == (Term("", ":", "x"),) * 40 and parse_filter("  ", FIELDS, FLAGS) == ()
    )
    for wrong, says in (
        ("x" * 2001, "the filter has 2,001 characters: at most 2,000 are read"),
        ("x " * 41, "the filter has more than 40 terms"),
        ("a b'\"c", "the filter is not understood from 'b\\'\"c' on: write FIELD:VALUE"),
        ("-", "the filter has a '-' with nothing behind it"), ("score<", "the filter says 'score<' without a value"),
        ("score:nan", "the filter says 'score:nan': 'nan' is not a number"),
        ("has:x", "the filter says 'has:x': has takes error, note, as in has:error"),
        ("has<error", "the filter says 'has<error': has takes error, note, as in has:error"),
        ("model<x", "the filter says 'model<x': model is text, which takes model:WORD or model=WORD"),
        ("modle:x", "the filter asks for 'modle', which is no field; did you mean 'model'?; there are model, score, has"),
        ("scores<1", "the filter asks for 'scores', which is no field; did you mean 'score'?; there are model, score, has"),
        ("x" * 41 + ".y:1", f"the filter asks for '{'x' * 40}', which is no field; there are model, score, has"),
        ("<5", "the filter says '<5' with no field before it: write score<0.5 without blanks, or quote the word"),
    ):  # fmt: skip
        said = refusal(parse_filter, wrong, FIELDS, FLAGS)
        assert said == says
    one = {op: [holds(Term("f", op, "2"), value) for value in (1, 2, 3)] for op in (":", "=", "<", "<=", ">", ">=")}  # type: ignore[arg-type]
    assert one == {
        ":": [False, True, False], "=": [False, True, False], "<": [True, False, False], "<=": [True, True, False],
        ">": [False, False, True], ">=": [False, True, True],
    }  # fmt: skip
    assert not holds(Term("f", "<", "2"), None) and not holds(Term("f", "<", "2", True), None)
    assert holds(Term("f", "<", "2", True), 2.0) and not holds(Term("f", "<", "2", True), 1)
    assert (
        holds(Term("f", ":", "ÄB"), "xäby")
        and not holds(Term("f", "=", "ab"), "xaby")
        and holds(Term("f", "=", "AB"), "ab")
    )
    assert holds(Term("f", "=", "b"), ("a", "B")) and not holds(Term("f", ":", "b", True), ["a", "b"])
    assert shown_filter({"a": "x", "b": "y z"}) == 'a=x b="y z"'


def test_attempts_are_found_by_their_numbers_words_and_states(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "x") as run:
        for name, model in (("ann", "Llama"), ("bob", "gpt")):
            run.add_agent(name, {"name": name, "model": model})
        for n, (agent, score, more) in enumerate((
            ("ann", 1.0, {}), ("bob", 0.5, {"stop_reason": "turns"}), ("ann", None, {"error": Failure("E", "Net"),
             "stop_reason": "error"}), ("bob", 1.5, {}), ("ann", 0.0, {}),
        )):  # fmt: skip
            scores = () if score is None else (Score("s", score),)
            run.append(Trace(f"i{n}", "quiz", f"T{n}", {"name": agent}, 0, 0, "", float(n), scores=scores, place=f"p{n}",
                             **more))  # fmt: skip

        def found(text: str, sort: str = "") -> str:
            page = AttemptQuery.parse(text, sort).page(run.database)
            assert page.total == len(page.rows)
            return "".join(row.id[1:] for row in page.rows)

        for text, ids in {
            "": "01234", "is:right": "03", "is:wrong": "14", "is:failed": "2", "has:error": "2", "-has:error": "0134",
            "has:limit": "1", "has:score": "0134", "score>=1": "03", "score<1": "14", "-score<1": "03", "score:0.5": "1",
            "model:llama": "024", "-model:llama": "13", "model=gpt": "13", "model=gp": "", "agent=BOB": "13",
            "agent:bo": "13",
            "task:t3": "3", "error:net": "2", "net": "2", "quiz": "01234", "-t4": "0123", "seconds>2 -has:error": "34",
            "id:i3": "3", "id:p1": "1", "stop=done": "034", "has:note": "",
        }.items():  # fmt: skip
            assert found(text) == ids, text
        assert [found("", sort) for sort in ("-finished", "score", "-score", "-seconds", "agent")] == [
            "43210", "41032", "30142", "43210", "02413",
        ]  # fmt: skip
        query = AttemptQuery.parse("-has:error", "-score")
        page = query.page(run.database, 1, 2)
        assert ([row.id for row in page.rows], page.total, page.start, page.next_start) == (["i0", "i1"], 4, 1, 3)
        assert query.page(run.database, -3, 1).start == 0 and query.page(run.database, 3, 2).next_start is None
        assert [query.beside(run.database, place) for place in ("p3", "p0", "p4", "p2")] == [
            (None, "p0"), ("p3", "p1"), ("p1", None), (None, None),
        ]  # fmt: skip
        assert AttemptQuery.parse("").facets(run.database) == {
            "benchmark": [("quiz", 5)], "agent": [("ann", 3), ("bob", 2)], "is": [("right", 2), ("wrong", 2), ("failed", 1)],
            "stop": [("done", 3), ("error", 1), ("turns", 1)],
        }  # fmt: skip
        assert AttemptQuery.parse("").facets(run.database, 1)["agent"] == [("ann", 3)]
        assert refusal(AttemptQuery.parse, "", "error").startswith(
            "attempts cannot be sorted by 'error': they can by finished, "
        )
    assert [FoundPage((1, 2), 5, 1).next_start, FoundPage((1, 2), 3, 1).next_start, FoundPage((), 3, 1).next_start] == [
        3, None, None,
    ]  # fmt: skip


def test_two_answers_are_shown_at_one_pace_until_the_shorter_has_ended() -> None:
    pair = PacedPair()
    assert pair.advance(5, False, 0, False, 10.0) == (0, 0), "nothing before both have begun"
    assert pair.advance(900, False, 50, False, 20.0) == (0, 0)
    assert pair.advance(900, False, 50, False, 20.05) == (30, 30), "600 characters a second"
    assert pair.advance(900, False, 50, False, 20.15) == (50, 50) and not pair.is_over
    assert pair.advance(900, True, 50, True, 20.5) == (50, 50), "the shorter one has ended after half a second"
    assert pair.advance(900, True, 50, True, 20.75) == (75, 50), "100 characters a second, as before"
    assert pair.advance(900, True, 50, True, 20.75) == (75, 50) and pair.advance(900, True, 50, True, 19.0) == (75, 50)
    assert pair.advance(900, True, 50, True, 40.0) == (175, 50), "never more than a second's at once"
    for later in range(41, 49):
        shown = pair.advance(900, True, 50, True, float(later))
    assert shown == (900, 50) and pair.is_over
    slow = PacedPair()
    slow.advance(0, True, 100, False, 0.0)
    assert slow.advance(0, True, 100, False, 1.0) == (0, 20) and slow.advance(0, True, 100, True, 2.0) == (0, 40)


def test_points_lie_by_the_logarithm_of_cost_and_the_frontier_is_marked() -> None:
    rows = [
        ("cheap", 0.2, 10.0, 0.01),
        ("worse", 0.1, 100.0, 0.1),
        ("best", 0.6, 1000.0, 1.0),
        ("odd", math.nan, 1.0, 1.0),
    ]
    assert scatter_points(rows) == (
        [CostPoint("cheap", 0.2, 0.01, 5.0, 23.0, True), CostPoint("worse", 0.1, 0.1, 50.0, 5.0, False),
         CostPoint("best", 0.6, 1.0, 95.0, 95.0, True)], "USD",
    )  # fmt: skip
    free = [("a", 0.5, 10.0, 0.0), ("b", 0.5, 0.0, 1.0), ("c", 0.5, 20.0, 1.0)]
    assert scatter_points(free) == (
        [CostPoint("a", 0.5, 10.0, 5.0, 50.0, True), CostPoint("c", 0.5, 20.0, 95.0, 50.0, False)], "tokens",
    )  # fmt: skip
    assert scatter_points([]) == ([], "tokens")


def test_settings_of_a_sweep_are_axes_and_go_with_the_result() -> None:
    configs = [{"lr": 0.001, "opt": "a", "same": 1, "n": 1, "l": []}, {"lr": 0.1, "opt": "b", "same": 1, "n": 3, "l": [1],
                "warm": 2}, {"lr": 0.01, "opt": "a", "same": 1, "n": None, "l": [], "note": "x" * 61}]  # fmt: skip
    axes = axes_of(configs, [{"acc": 0.1}, {"acc": 0.9}, {"acc": 0.5}])
    assert axes == [
        {"name": "lr", "is_setting": True, "kind": "number", "log": True, "values": [0.001, 0.1, 0.01]},
        {"name": "opt", "is_setting": True, "kind": "word", "log": False, "values": ["a", "b", "a"]},
        {"name": "n", "is_setting": True, "kind": "number", "log": False, "values": [1.0, 3.0, None]},
        {"name": "warm", "is_setting": True, "kind": "number", "log": False, "values": [None, 2.0, None]},
        {"name": "note", "is_setting": True, "kind": "word", "log": False, "values": [None, None, "x" * 60]},
        {"name": "acc", "is_setting": False, "kind": "number", "log": False, "values": [0.1, 0.9, 0.5]},
    ]
    # ranks 1, 3, 2: opt a has 1 and 2, b has 3; centred -1, 0 and 1, so ((-1)^2 / 2 + 1^2) / 2 = 3/4
    found = importances(axes, "acc")
    assert [(each.setting, each.kind, each.runs) for each in found] == [
        ("lr", "rank correlation", 3), ("opt", "correlation ratio", 3),
    ]  # fmt: skip
    assert (found[0].strength, found[0].direction) == pytest.approx((1, 1))
    assert (found[1].strength, found[1].direction) == pytest.approx((math.sqrt(0.75), 0))
    falling = importances(axes_of([{"lr": x} for x in (1, 2, 3)], [{"acc": -x} for x in (1, 2, 3)]), "acc")
    assert falling == [Importance("lr", "rank correlation", pytest.approx(1), pytest.approx(-1), 3)]
    assert importances(axes, "lr") == [] and ranked([5, 1, 5, 9]) == [2.5, 1, 2.5, 4]
    logs = [axes_of([{"x": a}, {"x": b}], [])[0]["log"] for a, b in ((1, 100), (1, 99), (0, 100), (-1, 100))]
    assert logs == [True, False, False, False]


def test_keys_of_tasks_with_two_to_24_values_make_parts(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "x") as run:
        for name, count in (("b", 24), ("c", 1)):
            run.add_tasks(name, [
                Task(f"t{n}", "?", metadata={"n": n, "one": 1, "more": f"{name}{n}", "no": [n], "long": f"{n}" + "x" * 90})
                for n in range(count)
            ])  # fmt: skip
        found = metadata_keys(run, ["b", "c"])
        assert (
            list(found) == ["long", "n"]
            and found["n"]["b", "t23"] == "23"
            and found["long"]["c", "t0"].startswith("0" + "x" * 79 + "… ")
        )
        assert list(metadata_keys(run, ["b"])) == ["long", "more", "n"]
        alike = ["y" * 80, "y" * 80, "y" * 81, "y" * 90 + "a", "y" * 90 + "b", "y" * 90 + "b"]
        run.add_tasks("d", [Task(f"t{n}", "?", metadata={"passage": each}) for n, each in enumerate(alike)])
        kept = list(metadata_keys(run, ["d"])["passage"].values())
        assert [kept.index(each) for each in kept] == [0, 0, 2, 3, 4, 4] and kept[0] == "y" * 80
        assert max(map(len, kept)) < 100


def test_tokens_are_laid_on_their_text_and_coloured_by_probability() -> None:
    bounds = (0.95, 0.9, 0.6, 0.5, 0.2, 0.099, 0.02, 0.0099, 0.001)
    assert [logprob_step(math.log(p)) for p in bounds] == [0, 1, 1, 2, 2, 3, 3, 4, 4] and logprob_step(0.5) == 0
    assert logprob_step(-math.inf) == logprob_step(math.nan) == 4
    assert laid_out("ab cd", ["ab", " c", "d"]) == ["ab", " c", "d"] and laid_out("abXcd", ["ab", None, "cd"]) == [
        "ab",
        "X",
        "cd",
    ]
    assert laid_out("abX", ["ab", None]) == ["ab", "X"] and laid_out("ab", ["ab", "<end>"]) == ["ab", ""]
    assert laid_out("abX", ["ab"]) == ["abX"] and laid_out("ab", [None, "x"]) is None and laid_out("", []) is None
    assert laid_out("a" + "X" * 40 + "b", ["a", None, "b"]) == ["a", "X" * 40, "b"]
    assert laid_out("a" + "X" * 41 + "b", ["a", None, "b"]) is None, "one of three fits"
    assert entropy_of([math.log(0.5), math.log(0.25)]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert entropy_of([0.0, -math.inf]) == 0 and entropy_of([]) == 0


def test_a_curve_of_an_export_is_points_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "x") as run:
        track = Track(run)
        for step, value in ((10, 1.0), (20, 5.0), (30, math.nan), (40, 3.0), (50, math.inf)):
            track.log({"loss": value, "flat": 2.0} if step < 25 else {"loss": value, "no": math.nan}, step=step)
        track.flush()
        assert repr(list(_curves(run))) == repr([
            ExportedCurve("flat", ("0.0,80.0 600.0,80.0",), 2.0, 2.0, 20, 2.0),
            ExportedCurve("loss", ("0.0,155.0 150.0,5.0", "450.0,80.0"), 1.0, 5.0, 50, math.inf),
            ExportedCurve("no", (), math.nan, math.nan, 50, math.nan),
        ])  # fmt: skip


def test_a_queue_counts_a_raters_open_items_and_refuses_numbers_outside_its_bounds(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    queues = Queues(kept)
    queue = queue_of_form({"name": " q ", "run": "r", "score": " s ", "raters": "2", "shared": "1", "guide": "g" * 4001},
                          ["a", "b"])  # fmt: skip
    assert queue == AnnotationQueue("q", "r", ("a", "b"), "s", 2, 1, "g" * 4000) and [
        queue.wanted(n) for n in (0, 1)
    ] == [2, 1]
    assert AnnotationQueue("q", "r", ("a",), "s", 3).wanted(9) == 3
    queues.make(queue)
    assert queues.get("q") == queue and queues.names() == ["q"]
    assert queues.next_item("q", "ann", now=0) == "a" and queues.next_item("q", "bob", now=1) == "a"
    assert queues.next_item("q", "cat", now=2) == "b" and queues.next_item("q", "dan", now=3) is None
    assert queues.next_item("q", "ann", now=599, skip=["a"]) is None
    assert queues.next_item("q", "dan", now=600) == "a", "ann's time is over at once"
    queues.rate("q", "a", "ann", 1.0, "why", version=0)
    queues.rate("q", "a", "bob", 0.0)
    state = queues.state("q")
    assert (state.done, state.pairs, state.same, state.by_rater) == (1, 1, 0, (("ann", 1, 1.0), ("bob", 1, 0.0)))
    assert [place for place, _ in state.disagreements] == ["a"] and state.kappa is not None
    for values, says in (
        ({"raters": "0"}, "raters is 0: give 1 to 10"), ({"raters": "11"}, "raters is 11: give 1 to 10"),
        ({"shared": "x"}, "shared is 'x': a whole number was expected"),
    ):  # fmt: skip
        assert refusal(queue_of_form, {"name": "q", **values}, ["a"]) == says
    assert queue_of_form({"raters": " 10 ", "shared": ""}, ["a"]).raters == 10
    assert refusal(queue_of_form, {}, []) == "the queue has no attempts: choose another filter"
    for value in (-0.1, 1.1):
        assert (
            refusal(queues.rate, "q", "a", "ann", value) == f"the label is {value}: a number from 0 to 1 was expected"
        )
    notes = RunNotes(kept)
    notes.keep("r", "  one\r\ntwo ", "ann", 0)
    notes.keep("s", "", "bob", 0)
    note = notes.get("r")
    assert note == RunNote("one\ntwo", "ann", note.at, 1) and notes.all() == {"r": note} and notes.get("x") == RunNote()
    notes.keep("r", "x" * 10_000, "bob", 1)
    assert refusal(notes.keep, "r", "x" * 10_001, "bob", 2) == "the note has 10,001 characters: at most 10,000 are kept"
    assert "was changed in the meantime" in refusal(notes.keep, "r", "y", "bob", 1)
    kept.close()


def test_an_attempt_becomes_a_test_of_its_own_place_and_score() -> None:
    made = as_test(
        "r'1", Trace("i 1", "b", "_Tä-1", {"name": "a"}, 2, 0, "", 1.0, scores=(Score("s", 0.25),), place="p")
    )
    names: dict[str, Any] = {}
    exec(compile(made, "made", "exec"), names)
    assert (names["RUN"], names["ATTEMPT"], names["BAR"]) == ("r'1", "b/_Tä-1/a/2", 0.25) and made.isascii()
    assert [name for name in names if name.startswith("test_")] == ["test_T__1_is_solved_as_well_as_before"]
    assert made.startswith('"""Made from attempt i1 of run r1: ')
    bare = as_test("r", Trace("i", "b", "é", {"name": "a"}, 0, 0, "", 1.0, place="p"))
    assert "BAR = 0.0\n" in bare and "def test_task_is_solved" in bare and json.dumps("é") not in bare
