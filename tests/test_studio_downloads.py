"""Copies, spans and long lists that the Studio's pages ask for, and the fields of a trial: each answer as a whole."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.ingest.task_rows import task_row
from firsthand.model import Sampling
from firsthand.runs import store
from firsthand.show import answer_diff
from firsthand.studio.attempt_spans import spans_json
from firsthand.studio.incoming_rows import incoming_spans_json, raw_spans
from firsthand.studio.trace_copies import as_examples, as_test
from firsthand.studio.views import attempt_views, comparison_views, incoming_views
from studio_page_outline import asked, sent
from studio_small_home import entered
from studio_varied_home import T, write_runs, write_traces

Shown = tuple[TestClient, dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = tmp_path_factory.mktemp("downloads")
    first, second = write_runs(home)
    write_traces(home)
    with entered(home) as client:
        yield client, {first: "FIRST", second: "SECOND"}, {"FIRST": first, "SECOND": second}


@pytest.mark.slow
def test_copies_of_an_attempt_are_files_with_all_of_it(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, names, ids = shown
    base = f"/runs/{ids['FIRST']}/attempts/p3"
    trace = client.app.state.runs.get(ids["FIRST"]).trace("p3")  # type: ignore[attr-defined]
    spans = client.get(f"{base}/spans.json")
    assert (spans.headers["content-type"], spans.json()) == (
        "application/json",
        json.loads(json.dumps(spans_json(trace.to_json()))),
    )
    for words, refs in (("moon", ["event:0"]), (" BOB says", ["call:0"]), ("ask T0", ["call:0"]), ("none", [])):
        assert client.get(f"{base}/spans/found", params={"words": words}).json() == refs
    assert client.get(f"{base}/spans/found").json() == ["call:0", "event:0"]
    assert sent(client, f"{base}/notes", {}, name="a", value="1")[0] == 303
    for kind, text in (("test.py", as_test(ids["FIRST"], client.app.state.runs.get(ids["FIRST"]).trace("p3"))),  # type: ignore[attr-defined]
                       ("example.jsonl", None)):  # fmt: skip
        copied = client.get(f"{base}/copy/{kind}")
        if text is None:
            assert (
                copied.status_code == 400
                and "it failed, is protected, its answer was cut, or no model answered in it"
                in html.unescape(copied.text)
            )
        else:
            assert (copied.text, copied.headers["content-disposition"]) == (text, f'attachment; filename="{kind}"')
    whole = client.app.state.runs.get(ids["SECOND"]).trace("p0")  # type: ignore[attr-defined]
    copied = client.get(f"/runs/{ids['SECOND']}/attempts/p0/copy/example.jsonl")
    assert (copied.text, copied.headers["content-type"]) == (
        as_examples(ids["SECOND"], whole),
        "text/plain; charset=utf-8",
    )
    assert asked(client, f"{base}/copy/{'x' * 41}", names) == (
        f"Problem an attempt is copied as test.py or example.jsonl, not as '{'x' * 40}' All runs(/)", 404,
    )  # fmt: skip
    monkeypatch.setattr(attempt_views, "MAX_RAW_CHARS", 30)
    page = client.get(f"/runs/{ids['SECOND']}/attempts/p0", params={"view": "raw"}).text
    raw = json.dumps(whole.to_json(), ensure_ascii=False, indent=1)
    (cut,) = re.findall(r'<pre class="raw">(.*?)</pre>', page, re.DOTALL)
    assert html.unescape(cut) == raw[:30] and f"{len(raw) - 30:,} more characters" in page


def test_copies_of_a_received_trace_are_files_with_all_of_it(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, _ = shown
    traces = client.app.state.traces  # type: ignore[attr-defined]
    two, one = traces.get(T[2]), traces.get(T[1])
    base = f"/traces/{T[2]}"
    assert client.get(f"{base}/spans.json").json() == json.loads(json.dumps(incoming_spans_json("ask", two.spans)))
    assert [client.get(f"{base}/spans/found", params={"words": words}).json() for words in ("deep", "LOOK", "x y")] == [
        ["span:2"], ["span:1", "span:2"], [],
    ]  # fmt: skip
    for trace, kind, text, media in (
        (two, "spans.json", json.dumps({"spans": [*raw_spans(two.spans)]}), "application/json"),
        (one, "task.jsonl", json.dumps(task_row(T[1], one.spans)) + "\n", "text/plain; charset=utf-8"),
        (one, "example.jsonl", as_examples("traces", one.trace), "text/plain; charset=utf-8"),
    ):
        copied = client.get(f"/traces/{trace.summary.trace}/copy/{kind}")
        assert (copied.text, copied.headers["content-type"], copied.headers["content-disposition"]) == (
            text, media, f'attachment; filename="{kind}"',
        )  # fmt: skip
    assert asked(client, f"{base}/copy/{'x' * 41}", {}) == (
        f"Problem a trace is copied as spans.json, task.jsonl or example.jsonl, not as '{'x' * 40}' All runs(/)", 404,
    )  # fmt: skip
    for path, says, status in (
        (f"{base}?view=x", "view is 'x': it is one of conversation, tree, raw", 400),
        ("/traces/by/x", "traces are grouped by sessions, users or days, not by 'x'", 404),
        (f"{base}/span?ref=call:0", "the trace has no span 'call:0'", 404),
        ("/traces?sort=name", "traces cannot be sorted by 'name': they can by started, changed, spans, errors, "
        "tokens, cost, seconds", 400),
    ):  # fmt: skip
        assert asked(client, path, {}) == (f"Problem {says} All runs(/)", status)
    assert asked(client, "/traces/by/session", {})[0] == asked(client, "/traces/by/sessions", {})[0]
    monkeypatch.setattr(incoming_views, "MAX_RAW_CHARS", 25)
    page = client.get(base, params={"view": "raw"}).text
    (cut,) = re.findall(r'<pre class="raw">(.*?)</pre>', page, re.DOTALL)
    raw = json.dumps({"spans": [*raw_spans(two.spans)]}, ensure_ascii=False, indent=1)
    assert html.unescape(cut) == raw[:25] and "ends in span 1 of 3: the download has all" in page


def test_a_home_without_traces_says_how_they_come(tmp_path: Path) -> None:
    with entered(tmp_path) as client:
        page, status = asked(client, "/traces?filter=user:ann", {})
        assert status == 200 and page.startswith(
            "Traces No traces yet Any program that is instrumented for OpenTelemetry "
        )
        assert "http://127.0.0.1:8131/v1/traces" in page or "http://127.0.0.1:8131" in page
        for path, words in (("sessions", "Traces(/traces) / Sessions No sessions yet "), ("users",
        "Traces(/traces) / Users No users yet "),
                            ("days", "Traces(/traces) / Days [get /traces/by/days Filter {filter=} Filter ] No "
                            "trace has come yet. ")):  # fmt: skip
            assert asked(client, f"/traces/by/{path}", {})[0].startswith(words)
        assert asked(client, "/traces?filter=x:y", {})[1] == 400
        assert sent(client, "/data-sets", {}, name="s", traces="") == (
            400,
            "Problem the filter finds no trace: choose another All runs(/)",
        )
        assert sent(client, "/data-sets", {}, name="s", trace="t") == (
            404,
            "Problem no trace 't': nothing has been received All runs(/)",
        )


def test_a_comparison_comes_page_by_page(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    client, names, ids = shown
    monkeypatch.setattr(comparison_views, "PAGE", 1)
    both = f"run={ids['FIRST']}&run={ids['SECOND']}"
    page = client.get(f"/compare?{both}&only=all").text
    more = f'hx-get="http://127.0.0.1:8131/compare?{both}&only=all&start=1"'
    assert more in html.unescape(page) and "2 tasks</h2>" in page and page.count("<tr data-row") == 1
    last, status = asked(client, f"+/compare?{both}&only=all&start=1", names)
    assert (last, status) == (
        "quiz / t1(/compare/attempts?run_a=FIRST&a=p2&run_b=SECOND&b=p1) ▲ better 0.25 0.75 before(/runs/FIRST/attempts/p2) "
        "after(/runs/SECOND/attempts/p1)", 200,
    )  # fmt: skip
    assert asked(client, f"/compare?{both}&only=same", names)[0].endswith(
        "0 tasks the same No task of that kind: show all "
        "tasks(http://127.0.0.1:8131/compare?run=FIRST&run=SECOND&only=all) ."
    )
    assert asked(client, f"/compare?{both}&b=none", names) == (
        "Problem no agent 'none' in the runs that are compared All runs(/)",
        400,
    )
    assert asked(client, f"/compare?{both}&slice=size", names) == (
        "Problem the tasks have no metadata 'size' to slice by: they have level All runs(/)", 400,
    )  # fmt: skip
    monkeypatch.setattr(comparison_views, "MAX_AGENTS", 3)
    monkeypatch.setattr(comparison_views, "MAX_TASKS", 2)
    grid, _ = asked(client, f"/compare/grid?{both}", names)
    assert grid.endswith("task annFIRST bobFIRST annSECOND quiz / t2 - 0.00 1.00 quiz / t0 0.75 0.00 0.25")
    assert "come first. 1 task after them is not shown." in grid
    monkeypatch.setattr(comparison_views, "MAX_AGENTS", 1)
    assert "SECOND" not in asked(client, f"/compare/grid?{both}", names)[0]
    monkeypatch.setattr(answer_diff, "MAX_DIFF_CHARS", 10)
    pair = asked(client, f"/compare/attempts?run_a={ids['FIRST']}&a=p0&run_b={ids['SECOND']}&b=p1", names)[0]
    assert "Answers, word by word the answer" in pair and "only the beginning was compared" in pair


@pytest.mark.slow
def test_a_trial_has_the_fields_of_its_form(shown: Shown) -> None:
    client, _, ids = shown
    state = client.app.state  # type: ignore[attr-defined]

    def trial(**fields: Any) -> Any:
        status, place = sent(client, "/playground", {}, **fields)
        assert status == 303 and place.startswith("/runs/") and client.portal is not None
        client.portal.call(state.playground.settled)
        with store.open_run(place.removeprefix("/runs/"), state.runs.home) as run:
            made = [run.trace(row.place) for row in run.rows()]
            return run.info.config["playground"], sorted(made, key=lambda each: each.epoch)

    config, traces = trial(prompt=" Hi? ", system=" Be brief ", model="m-two", temperature=" 0.25 ", max_tokens="9",
    alternatives="2",
                           seed="7", epochs="2")  # fmt: skip
    assert config == {"models": ["m-two"], "prompt": " Hi? ", "system": " Be brief ", "temperature": 0.25, "max_tokens": 9,
                      "alternatives": 2, "seed": 7, "epochs": 2}  # fmt: skip
    sampling = Sampling(temperature=0.25, max_tokens=9, top_logprobs=2).to_json()
    assert [(each.agent_name, each.epoch, each.agent["system"], each.agent["sampling"]) for each in traces] == [
        ("m-two", epoch, " Be brief ", sampling) for epoch in range(2)
    ]
    assert len({each.seed for each in traces}) <= 2 and traces[0].nodes[-1].message.text == "It is 1"
    config, traces = trial(prompt="Hi?", system=" ", model="m-one", temperature="", epochs="", at="")
    assert config == {"models": ["m-one"], "prompt": "Hi?", "epochs": 1} and traces[0].agent["system"] is None
    config, traces = trial(
        run=ids["FIRST"], attempt="p1", at="2", say=" More ", model="m-one", pattern="reply", seed="3"
    )
    assert config == {"models": ["m-one"], "seed": 3, "epochs": 1, "run": ids["FIRST"], "attempt": "p1", "at": 2,
    "say": "More",
                      "is_plain": True}  # fmt: skip
    assert [(each.agent_name, each.epoch, each.seed, [node.message.text for node in each.nodes]) for each in traces] == [
        ("m-one", 1, 3, ["Ask t0", "ann says 1", "More", "It is 1"]),
    ]  # fmt: skip
    made = next(info.id for info in state.runs.infos() if "playground" in info.config)
    state.playground.problems |= {made: "It broke", ids["FIRST"]: "So did it"}
    names = {made: "MADE", ids["FIRST"]: "FIRST"}
    assert " It broke Note " in asked(client, f"/runs/{made}", names)[0]
    assert " So did it Note " in asked(client, "/runs/FIRST", names)[0]
    assert "broke" not in asked(client, f"/runs/{ids['SECOND']}", names)[0]
    listed = asked(client, "/playground", names)[0].partition("Runs made here ")[2]
    assert listed.startswith(
        "run status models prompt attempts MADE(/runs/MADE) It broke done m-one continues FIRST 1 "
    ) and "So did it" not in listed  # fmt: skip
    state.playground.problems.clear()
    for fields, says, status in (
        ({"model": "m-one", "prompt": " "}, "the prompt is empty: write a question", 400),
        ({"prompt": "Hi"}, "no model was chosen: choose one or more", 400),
        ({"model": "m-one", "prompt": "Hi", "epochs": "17"}, "epochs is 17: give 1 to 16", 400),
        ({"model": "m-one", "prompt": "Hi", "epochs": "0"}, None, 303),
        ({"model": "m-one", "prompt": "Hi", "temperature": "warm"}, "temperature is 'warm': a number was expected", 400),
        ({"model": "m-one", "attempt": "p9", "run": ids["FIRST"]}, f"no attempt 'p9'; `firsthand runs "
        f"{ids['FIRST']}` shows all", 404),
        ({"model": "m-one", "attempt": "p1", "run": "none"}, "no run 'none'; `firsthand runs` shows all", 404),
    ):  # fmt: skip
        found = sent(client, "/playground", {}, **fields)
        assert found[0] == status and (says is None or found[1] == f"Problem {says} All runs(/)")


def test_an_address_is_kept_with_all_that_a_page_may_have_in_it(shown: Shown) -> None:
    client, names, _ = shown
    whole = "/runs/a?b=c&d=%41:1+2,3;4@5!$'()*~[]#e"
    for place, kept in ((whole, whole), ("/", "/"), ('/"<>', "/%22%3C%3E"), ("/x{}|^`", "/x%7B%7D%7C%5E%60")):
        assert sent(client, "/views", names, name="v", address=place) == (303, "/views")
        text, _ = asked(client, "/views", names)
        assert text.startswith(f"Saved views view address saved remove v({kept}) {kept} 20"), place
        assert sent(client, "/views/remove", names, name="v") == (303, "/views")
    for place in ("", "a", "//a", "/\\a", "/a\\b", "/a b", "/a\n", "http://x/"):
        expected = "a page of the Studio was expected, such as /?filter=has:error All runs(/)"
        says = f"Problem address is {place!r}: {expected}"
        assert sent(client, "/views", names, name="v", address=place) == (400, says)
    assert sent(client, "/views", names, name=" ", address="/") == (
        400, "Problem '' is no name: give 1 to 200 characters on one line All runs(/)",
    )  # fmt: skip
    assert sent(client, "/views/remove", names, name="none") == (303, "/views")


@pytest.mark.slow
def test_a_data_set_is_checked_by_numbers_unless_its_form_says_another_check(shown: Shown) -> None:
    client, names, ids = shown
    assert sent(client, "/data-sets", names, name="s", run=ids["FIRST"], attempt="p2")[0] == 303
    state = client.app.state  # type: ignore[attr-defined]
    answer = client.post("/data-sets/s/run", content="model=m-two&model=m-one&model=m-two", follow_redirects=False, headers={
        "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"})  # fmt: skip
    assert answer.status_code == 303 and client.portal is not None
    client.portal.call(state.playground.settled)
    with store.open_run(answer.headers["location"].removeprefix("/runs/"), state.runs.home) as run:
        assert run.info.config == {"data_set": "s", "models": ["m-two", "m-one"], "check": "numeric"}
        made = [run.trace(row.place) for row in run.rows()]
        assert sorted((each.agent_name, each.scores[0].name, each.scores[0].value) for each in made) == [
            ("m-one", "numeric", 1.0), ("m-two", "numeric", 1.0),
        ]  # fmt: skip
