"""Forms of the Studio and the pages that show what they have made: queues, data sets, prompts, views and notes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.score_totals import ScoreMean
from firsthand.studio.prompt_library import tried_in
from firsthand.studio.views.arena_views import voter_of
from studio_page_outline import asked, outline, sent
from studio_small_home import entered
from studio_varied_home import T, write_runs, write_traces

_KEY = re.compile(r"\{key=[0-9a-f]{16}\}")

Shown = tuple[TestClient, dict[str, str]]
ME = voter_of(Request({"type": "http"}))


@pytest.fixture
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = tmp_path_factory.mktemp("forms")
    first, second = write_runs(home)
    write_traces(home)
    names = {first: "FIRST", second: "SECOND", **{id: f"T{number}" for number, id in T.items()}}
    now = datetime.now(UTC).timestamp()
    for each in (datetime.fromtimestamp(now + late, UTC).isoformat()[:16] for late in (0, 60)):
        names |= {each: "NOW", each.replace("T", " "): "NOW"}
    with entered(home) as client:
        yield client, names


@pytest.mark.slow
def test_a_queue_is_made_worked_through_and_shown(shown: Shown) -> None:
    client, names = shown
    base = "/queues/q%201"
    made = {"name": " q 1 ", "run": "FIRST", "filter": "agent:ann", "score": " good ", "raters": "2", "shared": "2"}
    for fields, answer in (
        ({**made, "name": " q/1"}, (400, "Problem 'q/1' is no name of a queue: leave the slash out All runs(/)")),
        ({**made, "guide": "Look well"}, (303, base)),
        (
            {**made, "filter": "agent=zed"},
            (400, "Problem the queue has no attempts: choose another filter All runs(/)"),
        ),
        ({**made, "raters": "11"}, (400, "Problem raters is 11: give 1 to 10 All runs(/)")),
    ):
        assert sent(client, "/queues", names, **fields) == answer
    for place, who, value, text, version, answer in (
        ("p0", "eve", "1", "Sure", "0", (303, f"{base}/next?as=eve")),
        ("p0", "dan", "0.25", "Hm", "0", (303, f"{base}/next?as=dan")),
        ("p1", "eve", "0", "", "0", (303, f"{base}/next?as=eve")),
        ("p2", "eve", "0.5", "So so", "0", (303, f"{base}/next?as=eve")),
        ("p9", "eve", "1", "", "0", (404, "no attempt 'p9'; `firsthand runs FIRST` shows all")),
        ("p4", "eve", "1", "", "0", (404, "the queue 'q 1' has no attempt 'p4'")),
        ("p1", "eve", "1", "", "1234567890", (400, "version is '1234567890': a whole number was expected")),
        ("p1", "eve", "1", "", "", (400, "version is '': a whole number was expected")),
        ("p1", "zed", "1", "", "5",
         (400, "the label q 1 'p1 human:zed' was changed in the meantime: open it again and repeat your change")),
    ):  # fmt: skip
        told = answer if answer[0] == 303 else (answer[0], f"Problem {answer[1]} All runs(/)")
        fields = {"value": value, "text": text, "version": version, "as": who}
        assert sent(client, f"{base}/items/{place}", names, **fields) == told
    item = (
        "Queues(/queues) / q 1(/queues/q%201) / quiz / t1 3 of 3 rated by human:eve. the whole "
        "attempt(/runs/FIRST/attempts/p2)@ Look well question Q1? expected 1 answer the answer 2 [post "
        "/queues/q%201/items/p2 {version=1} {as=eve} {value=0.5} Keep the words good {value=0.0} 1 no {*value=0.5} 2 partly "
        "{value=1.0} 3 yes s skip(/queues/q%201/next?skip=p2&as=eve) words {text=#} ] user #0 Ask t1 assistant #2 ann says 2"
    )
    problem = (
        " Another tab has rated this attempt 0.5 meanwhile, and your 1 was not kept: "
        "rate it again here to replace that."
    )
    late = sent(client, f"{base}/items/p2", names, value="1", text="Mine", version="0", **{"as": "eve"})
    assert late == (409, item.replace("@", problem).replace("{text=#}", "{text=Mine}"))
    bare = sent(client, f"{base}/items/p2", names, value="", text="Words alone", version="1", **{"as": "eve"})
    asks = " Your words are not kept yet: choose a label with them, 1 (no), 2 (partly), 3 (yes)."
    assert bare == (400, item.replace("@", asks).replace("{text=#}", "{text=Words alone}"))
    for key, says in {
        "/queues/q%201/items/p2?as=eve": item.replace("@", "").replace("{text=#}", "{text=So so}"),
        "/queues/q%201/items/p1?as=dan": (
            "Queues(/queues) / q 1(/queues/q%201) / quiz / t0 1 of 3 rated by human:dan. the whole "
            "attempt(/runs/FIRST/attempts/p1) Look well question Q0? expected 0 answer the answer 1 [post "
            "/queues/q%201/items/p1 {version=0} {as=dan} {value=} Keep the words good {value=0.0} 1 no {value=0.5} 2 partly "
            "{value=1.0} 3 yes s skip(/queues/q%201/next?skip=p1&as=dan) words {text=} ] user #0 Ask t0 assistant #2 ann "
            "says 1"
        ),
        "/queues?run=FIRST&filter=agent:bob": (
            "Annotation queues queue run score finished raters agreement work q 1(/queues/q%201) FIRST(/runs/FIRST) "
            "note.good 2 of 3 2 α 0.00 rate(/queues/q%201/next) New queue [post /queues name {name=} run run: SECOND "
            "*FIRST filter {filter=agent:bob} score {score=helpful} raters of each {raters=1} rated by several "
            "{shared=} What raters look for {guide=} Make the queue 2 attempts]"
        ),
        "/queues/q%201?as=dan": (
            "Queues(/queues) / q 1 Attempts of FIRST(/runs/FIRST) , rated as note.good by 2 people for the first 2, by "
            "one for the rest. Look well 2 of 3 finished, 4 labels. Rate the next one(/queues/q%201/next) as human:dan "
            "rater labels mean human:dan 1 0.25 human:eve 3 0.50 Agreement 0 of 1 attempt that several rated have "
            "equal labels. Krippendorff's α 0.00; Cohen's κ 0.00 of the two with the most in common, where labels "
            "that lie further apart differ more, by the square. Where raters "
            "differ, the largest difference first. attempt labels "
            "t0, ann(/runs/FIRST/attempts/p0) 0.25 human:dan: Hm1 human:eve: Sure Attempts t0, "
            "ann(/queues/q%201/items/p0) t0, ann(/queues/q%201/items/p1) t1, ann(/queues/q%201/items/p2)"
        ),
    }.items():  # fmt: skip
        assert asked(client, key, names) == (says, 200), key
    for query, place in (("?as=eve", "?as=eve"), ("?as=kim&skip=p1", "?as=kim"), ("?as=dan", "/items/p1?as=dan"),
                         ("?as=kim", "?as=kim"), ("?as=dan&skip=p1", "?as=dan")):  # fmt: skip
        moved = client.get(f"{base}/next{query}", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (303, base + place), query
    runs = client.app.state.runs  # type: ignore[attr-defined]
    first = next(id for id, name in names.items() if name == "FIRST")
    notes = [(row.place, each.name, each.value, dict(each.detail)) for row in runs.get(first).rows()
             for each in runs.get(first).trace(row.place).attempt_scores if each.name != "exact"]  # fmt: skip
    ratings = {"human:eve": {"value": 1.0, "text": "Sure"}, "human:dan": {"value": 0.25, "text": "Hm"}}
    both = {"by": "human:eve, human:dan", "text": "human:eve: Sure\nhuman:dan: Hm", "ratings": ratings}
    assert notes == [
        ("p0", "note.good", 0.625, both),
        ("p1", "note.good", 0.0, {"by": "human:eve"}), ("p2", "note.good", 0.5, {"by": "human:eve", "text": "So so"}),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_data_set_is_collected_run_with_a_prompt_and_taken_apart(shown: Shown) -> None:
    client, names = shown
    for fields, answer in (
        ({"run": "FIRST", "filter": "agent:ann"}, (303, "/data-sets/set%201")),
        ({"run": "SECOND", "attempt": "p3"}, (303, "/data-sets/set%201")),
        ({"trace": "T3"}, (303, "/data-sets/set%201")),
        ({"traces": "tokens>0"}, (303, "/data-sets/set%201")),
        ({"traces": "user:nobody"}, (400, "Problem the filter finds no trace: choose another All runs(/)")),
        (
            {"run": "FIRST", "filter": "agent=x"},
            (400, "Problem the filter finds no attempt: choose another All runs(/)"),
        ),
        ({"trace": "T2"}, (400, "Problem trace T2 has no question, so no task can be made of it All runs(/)")),
    ):
        assert sent(client, "/data-sets", names, name=" set 1 ", **fields) == answer
    base, rows = "/data-sets/set%201", "task prompt expected from remove"
    for task, says in (
        ("quiz / t0", "Q0? 0 1(/runs/FIRST/attempts/p0)"), ("quiz / t1", "Q1? 1 0.25(/runs/FIRST/attempts/p2)"),
        ("quiz / t2", "Q2? 2 0.5(/runs/SECOND/attempts/p3)"), ("traces / T3", "What now? Wait trace(/traces/T3)"),
        ("traces / T1", "Where is it? Here trace(/traces/T1)"),
    ):  # fmt: skip
        benchmark, _, id = task.partition(" / ")
        rows += f" {task} {says} [post {base}/remove {{benchmark={benchmark}}} {{task={id}}} {{key=KEY}} remove ]"
    page = (
        "Data sets(/data-sets) / set 1 5 tasks, version 4. download as JSONL(/data-sets/set%201/tasks.jsonl) , download as "
        "a pytest file(/data-sets/set%201/test.py) [post /data-sets/set%201/run run with {*model=m-one} m-one {model=m-two} "
        "m-two check answers by check: exact normalised none system message prompt: none@ Run ] "
    )
    text, status = asked(client, base, names)
    assert (_KEY.sub("{key=KEY}", text), status) == (page.replace("@", "") + rows, 200)
    assert asked(client, "/data-sets", names) == (
        "Data sets data set tasks version benchmarks set 1(/data-sets/set%201) 5 4 quiz, traces", 200,
    )  # fmt: skip
    lines = client.get(f"{base}/tasks.jsonl")
    assert lines.headers["content-disposition"] == 'attachment; filename="tasks.jsonl"'
    ids = {name: id for id, name in names.items()}
    assert [json.loads(line) for line in lines.text.splitlines()] == [
        {"id": id, "prompt": prompt, "target": target, "from": {"run": run, "attempt": place}}
        for id, prompt, target, run, place in (
            ("t0", "Q0?", "0", ids["FIRST"], "p0"), ("t1", "Q1?", "1", ids["FIRST"], "p2"),
            ("t2", "Q2?", "2", ids["SECOND"], "p3"), (T[3], "What now?", "Wait", "", T[3]),
            (T[1], "Where is it?", "Here", "", T[1]),
        )
    ]  # fmt: skip
    written = client.get(f"{base}/test.py")
    assert written.headers["content-disposition"] == 'attachment; filename="test_data_set.py"'
    assert "    ('2 t1', 'Q1?', [], {'answers': ['1']}, 'flexible', 0.25),\n" in written.text
    assert sent(client, "/prompts", names, name="brief", text="Be brief.") == (303, "/prompts/brief")
    assert sent(client, "/prompts", names, name="brief", text="Be short.") == (303, "/prompts/brief")
    for fields, says in (({"check": "bad"}, "the check is 'bad': it is one of numeric, exact, normalised, flexible, choice, "
                          "none"),
                         ({"model": "none"}, "no model 'none' was named when the Studio was started: there is m-one, m-two"),
                         ({"prompt": "long"}, "no prompt 'long'")):  # fmt: skip
        status = 400 if "check" in fields else 404
        assert sent(client, f"{base}/run", names, **{"model": "m-one", **fields}) == (
            status,
            f"Problem {says} All runs(/)",
        )
    status, place = sent(client, f"{base}/run", names, model="m-two", check="exact", prompt="brief@1")
    assert (status, place[:6]) == (303, "/runs/") and client.portal is not None
    state = client.app.state  # type: ignore[attr-defined]
    client.portal.call(state.playground.settled)
    names[place[6:]] = "MADE"
    with store.open_run(place[6:], state.runs.home) as run:
        assert run.info.config == {
            "data_set": "set 1",
            "models": ["m-two"],
            "check": "exact",
            "prompt": "brief",
            "prompt_version": 1,
        }
        made = [run.trace(row.place) for row in run.rows()]
        assert sorted(
            (each.benchmark, each.task_id, each.agent_name, each.agent["system"], each.answer) for each in made
        ) == sorted(("set 1", task, "m-two", "Be brief.", "It is 1") for task in ("t0", "t1", "t2", T[1], T[3]))
        assert {each.scores[0].name for each in made} == {"exact"}
    text, status = asked(client, base, names)
    ran = "Runs of it: MADE(/runs/MADE) . compare(/compare?run=MADE&) "
    assert (_KEY.sub("{key=KEY}", text), status) == (page.replace("@", " brief") + ran + rows, 200)
    tried = asked(client, "/prompts/brief", names)[0]
    assert (
        tried.startswith("Prompts(/prompts) / brief Scores ")
        and " 1 MADE(/runs/MADE) " in tried.partition("New version")[0]
    )
    assert sent(client, f"{base}/remove", names, benchmark="quiz", task="t1") == (303, base)
    assert sent(client, f"{base}/remove", names, benchmark="traces", task="t2") == (303, base)
    assert asked(client, "/data-sets", names)[0].endswith("set 1(/data-sets/set%201) 4 6 quiz, traces")
    for benchmark, task, left in (
        ("quiz", "t0", True),
        ("quiz", "t2", True),
        ("traces", "T1", True),
        ("traces", "T3", False),
    ):
        assert sent(client, f"{base}/remove", names, benchmark=benchmark, task=task) == (
            303,
            base if left else "/data-sets",
        )
    assert asked(client, base, names) == ("Problem no data set 'set 1' All runs(/)", 404)


@pytest.mark.slow
def test_prompts_views_and_notes_are_kept_as_they_were_typed(shown: Shown) -> None:
    client, names = shown
    for path, fields, answer in (
        ("/prompts", {"name": " brief ", "text": "Be brief.\r\nVery.", "note": "first"}, (303, "/prompts/brief")),
        ("/prompts", {"name": "brief", "text": "Be short.", "note": "second", "after": "1"}, (303, "/prompts/brief")),
        ("/prompts", {"name": "brief", "text": "x", "after": "1"},
         (400, "the prompt 'brief' has 2 versions by now: open it again")),
        ("/prompts", {"name": "brief", "text": "x", "after": "x"}, (400, "after is 'x': a whole number was expected")),
        ("/prompts", {"name": "b", "text": " "}, (400, "the prompt has 1 characters: give 1 to 50,000")),
        ("/views", {"name": " mine ", "address": '/?filter=has:error&x=é"'}, (303, "/views")),
        ("/views", {"name": "b", "address": "//evil"},
         (400, "address is '//evil': a page of the Studio was expected, such as /?filter=has:error")),
        ("/views", {"name": "b", "address": "/" + "a" * 8000},
         (400, f"address is '/{'a' * 59}': a page of the Studio was expected, such as /?filter=has:error")),
        ("/views", {"name": "a" * 200, "address": "/" + "a" * 7999}, (303, "/views")),
        ("/views/remove", {"name": "a" * 200}, (303, "/views")),
        ("/runs/FIRST/attempts/p4/notes", {"name": " clear ", "value": "0.25", "text": "Words", "view": "tree"},
         (303, "/runs/FIRST/attempts/p4?view=tree")),
        ("/runs/FIRST/attempts/p4/notes", {"name": "clear", "value": "1.5"},
         (400, "a note's score is '1.5': a number from 0 to 1 was expected")),
        ("/runs/FIRST/note", {"text": " A note\r\nof two ", "version": "0"}, (303, "/runs/FIRST")),
    ):  # fmt: skip
        status, said = answer
        told = said if status == 303 else f"Problem {said} All runs(/)"
        assert sent(client, path, names, **fields) == (status, told), fields
    shown_note = (
        "Runs(/) / FIRST interrupted NOW:@ UTC, 5 attempts, 771 tokens, 1 error(/runs/FIRST?filter=has%3Aerror#attempts) , "
        f"compare its agents(/compare?run=FIRST) , tasks by agents(/compare/grid?run=FIRST) Note by {ME}, NOW UTC "
    )
    kept = (
        "It says now: A note of two [post /runs/FIRST/note {version=1} {text=Mine} Keep the note ] Command and settings"
    )
    for version, says in (("0", "the run-note 'FIRST' is there already: open it again and repeat your change "),
                          ("7", "the run-note 'FIRST' was changed in the meantime: open it again and repeat your change "),
                          ("123456789", "version is '123456789': a whole number was expected ")):  # fmt: skip
        status, text = sent(client, "/runs/FIRST/note", names, text="Mine", version=version)
        seconds = text.partition("NOW:")[2][:2]
        assert status == 400 and text.startswith(shown_note.replace("@", seconds) + says + kept)
    for key, says in {
        "/prompts": (
            f"Prompts prompt versions last change text brief(/prompts/brief) 2 NOW {ME} Be short. "
            "New prompt [post /prompts name {name=} System message {text=} Keep ]"
        ),
        "/prompts/brief": (
            "Prompts(/prompts) / brief Scores It has not been tried yet. Collect a data set(/data-sets) first, and run it "
            "with this prompt. "
            "New version [post /prompts {name=brief} {after=2} System message {text=Be short.} What changed {note=} "
            f"Keep as version 3 ] History version 2 NOW, {ME}: second Be brief short . Very. version "
            f"1 NOW, {ME}: first Be brief. Very."
        ),
        "/views": (
            "Saved views view address saved remove mine(/?filter=has:error&x=%C3%A9%22) /?filter=has:error&x=%C3%A9%22 "
            "NOW [post /views/remove {name=mine} remove ]"
        ),
        "+/?filter=note:two&sort=-id&start=0": (
            "status interrupted1 1 of 2 runs columns marked run(/?filter=note%3Atwo&sort=-created) "
            "status(/?filter=note%3Atwo&sort=-status) benchmarks agents scores(/?filter=note%3Atwo&sort=-score) "
            "attempts(/?filter=note%3Atwo&sort=-attempts) errors(/?filter=note%3Atwo&sort=-errors) "
            "tokens(/?filter=note%3Atwo&sort=-tokens) steps(/?filter=note%3Atwo&sort=-steps) FIRST(/runs/FIRST) A note "
            "interrupted 0.50 ann0.00 bob 5 1(/runs/FIRST?filter=has%3Aerror#attempts) 771"
        ),
    }.items():
        assert asked(client, key, names) == (says, 200), key
    page = asked(client, "/runs/FIRST/attempts/p4?filter=has:note", names)[0]
    assert " answer the answer 4 scores 0 exact note.clear 0.25 Words *conversation(" in page
    assert sent(client, "/views/remove", names, name="mine") == (303, "/views")
    assert asked(client, "/views", names)[0].startswith("Saved views There are none yet.")
    assert outline("<p>a</p>") == "a"


def test_the_runs_of_a_prompt_stand_by_version_with_their_mean_score() -> None:
    def info(id: str, config: dict[str, object], *means: float | None) -> RunInfo:
        scores = tuple(ScoreMean("b", "a", mean, 1) for mean in means)
        return RunInfo(id, Path(id), config=config, scores=scores)

    infos = [
        info("a", {"prompt": "p", "prompt_version": 1}, 0.5, None, 1.0), info("b", {"prompt": "p",
        "prompt_version": 3}, None),
        info("c", {"prompt": "q", "prompt_version": 3}, 1.0), info("d", {"prompt": "p", "prompt_version": "3"}, 1.0),
        info("e", {"prompt": "p", "prompt_version": 3}, 0.25), info("f", {"prompt": "p"}), info("g", {"prompt_version": 2}),
        info("h", {"prompt": "p", "prompt_version": 2}),
    ]  # fmt: skip
    assert [(each.info.id, each.version, each.score) for each in tried_in("p", infos)] == [
        ("b", 3, None), ("e", 3, 0.25), ("h", 2, None), ("a", 1, 0.75),
    ]  # fmt: skip
    assert tried_in("none", infos) == []
