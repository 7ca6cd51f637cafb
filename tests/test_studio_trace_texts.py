"""Received traces: the whole text of their pages, and their queries, rows and spans asked for directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from studio_page_outline import asked
from studio_small_home import entered
from studio_varied_home import T, span, usage, write_traces

PAGES = {
    "/traces?filter=-user:zed&sort=-tokens": (
        "Traces Sessions(/traces/by/sessions) Users(/traces/by/users) Days(/traces/by/days) [get /traces Filter "
        "{filter=-user:zed} {sort=-tokens} Filter ] add them to a data set [post /data-sets traces "
        "{traces=-user:zed} data set {name=} Add ] service bank1 shop1 model big1 small1 name ask3 ask_it1 orphan1 "
        "plan1 user ann3 bob1 cat1 session s13 s21 6 of 6 traces columns "
        "trace(/traces?filter=-user%3Azed&sort=-started) input output session and user "
        "time(/traces?filter=-user%3Azed&sort=-seconds) spans(/traces?filter=-user%3Azed&sort=-spans) "
        "errors(/traces?filter=-user%3Azed&sort=-errors) tokens(/traces?filter=-user%3Azed&sort=tokens) "
        "cost(/traces?filter=-user%3Azed&sort=-cost) scores ask(/traces/T1?filter=-user%3Azed&sort=-tokens) "
        "1970-01-02 00:00:00, shop, big Where is it? Here s1(/traces?filter=session%3Ds1) ann 4.0 s 1 107 "
        "$0.50 exact 0.5kind 1 plan(/traces/T3?filter=-user%3Azed&sort=-tokens) 1970-01-03 00:00:00, small What "
        "now? Wait s2(/traces?filter=session%3Ds2) ann 2.0 s 1 35 exact 0.75 "
        "orphan(/traces/T6?filter=-user%3Azed&sort=-tokens) 1970-01-04 00:00:00, no root yet 5.0 s 1 "
        "ask_it(/traces/T5?filter=-user%3Azed&sort=-tokens) 1970-01-03 00:00:05, bank cat 1.0 s 1 "
        "ask(/traces/T4?filter=-user%3Azed&sort=-tokens) 1970-01-02 00:00:30 s1(/traces?filter=session%3Ds1) "
        "ann 6.0 s 1 1 ask(/traces/T2?filter=-user%3Azed&sort=-tokens) 1970-01-02 00:00:10 "
        "s1(/traces?filter=session%3Ds1) bob 3.0 s 3 2"
    ),
    "+/traces?start=4&filter=-tag:x": (
        "ask(/traces/T2?filter=-tag%3Ax) 1970-01-02 00:00:10 s1(/traces?filter=session%3Ds1) bob 3.0 s 3 2 "
        "ask(/traces/T1?filter=-tag%3Ax) 1970-01-02 00:00:00, shop, big Where is it? Here "
        "s1(/traces?filter=session%3Ds1) ann 4.0 s 1 107 $0.50 exact 0.5kind 1"
    ),
    "+/traces?filter=has:score": (
        "service shop1 model big1 small1 name ask1 plan1 user ann2 session s11 s21 2 of 6 traces columns "
        "trace(/traces?filter=has%3Ascore&sort=-started) input output session and user "
        "time(/traces?filter=has%3Ascore&sort=-seconds) spans(/traces?filter=has%3Ascore&sort=-spans) "
        "errors(/traces?filter=has%3Ascore&sort=-errors) tokens(/traces?filter=has%3Ascore&sort=-tokens) "
        "cost(/traces?filter=has%3Ascore&sort=-cost) scores plan(/traces/T3?filter=has%3Ascore) 1970-01-03 "
        "00:00:00, small What now? Wait s2(/traces?filter=session%3Ds2) ann 2.0 s 1 35 exact 0.75 "
        "ask(/traces/T1?filter=has%3Ascore) 1970-01-02 00:00:00, shop, big Where is it? Here "
        "s1(/traces?filter=session%3Ds1) ann 4.0 s 1 107 $0.50 exact 0.5kind 1"
    ),
    "/traces/by/sessions": (
        "Traces(/traces) / Sessions session first last traces with errors users tokens cost "
        "s2(/traces?filter=session%3Ds2&sort=started) 1970-01-03 00:00:00 1970-01-03 00:00:02 1 1 35 "
        "s1(/traces?filter=session%3Ds1&sort=started) 1970-01-02 00:00:00 1970-01-02 00:00:36 3 2 2 107 $0.50"
    ),
    "/traces/by/users?filter=-session:s2": (
        "Traces(/traces) / Users user first last traces with errors sessions tokens cost "
        "cat(/traces?filter=user%3Dcat) 1970-01-03 00:00:05 1970-01-03 00:00:06 1 "
        "ann(/traces?filter=user%3Dann) 1970-01-02 00:00:00 1970-01-02 00:00:36 2 1 1 107 $0.50 "
        "bob(/traces?filter=user%3Dbob) 1970-01-02 00:00:10 1970-01-02 00:00:13 1 1 1"
    ),
    "/traces/by/days?filter=-id:T6": (
        "Traces(/traces) / Days [get /traces/by/days Filter {filter=-id:T6} Filter ] day (UTC) traces with errors "
        "share tokens cost median time 95th percentile 1970-01-03(/traces?filter=-id%3AT6+day%3D1970-01-03) 2 35 "
        "1.0 s 2.0 s 1970-01-02(/traces?filter=-id%3AT6+day%3D1970-01-02) 3 2 66.7% 107 $0.50 4.0 s 6.0 s"
    ),
    "/traces/by/days?filter=user:zed": (
        "Traces(/traces) / Days [get /traces/by/days Filter {filter=user:zed} Filter ] No trace fulfils this filter."
    ),
    "/traces/T1?filter=session:s1&sort=started": (
        "Traces(/traces?filter=session%3As1&sort=started) / ask 1970-01-02 00:00:00 UTC, 4.0 s, 1 span, 107 tokens "
        "(100 in, 0 of them cached, 7 out), $0.50 next →(/traces/T2?filter=session%3As1&sort=started) service shop "
        "session s1(/traces?filter=session%3Ds1&sort=started) user ann(/traces?filter=user%3Dann) "
        "input Where is it? output Here scores 0.5 exact1 kind "
        "*conversation(/traces/T1?filter=session%3As1&sort=started) "
        "tree(/traces/T1?view=tree&filter=session%3As1&sort=started) "
        "raw(/traces/T1?view=raw&filter=session%3As1&sort=started) user #0 Where is it? assistant #1 Here"
    ),
    "/traces/T4?filter=session:s1&sort=started": (
        "Traces(/traces?filter=session%3As1&sort=started) / ask 1970-01-02 00:00:30 UTC, 6.0 s, 1 span, 0 tokens "
        "(0 in, 0 of them cached, 0 out) ← previous(/traces/T2?filter=session%3As1&sort=started) Too late session "
        "s1(/traces?filter=session%3Ds1&sort=started) user ann(/traces?filter=user%3Dann) output none "
        "*conversation(/traces/T4?filter=session%3As1&sort=started) "
        "tree(/traces/T4?view=tree&filter=session%3As1&sort=started) "
        "raw(/traces/T4?view=raw&filter=session%3As1&sort=started) No span holds messages; the tree has what was "
        "sent."
    ),
    "/traces/T2?view=tree": (
        "Traces(/traces) / ask 1970-01-02 00:00:10 UTC, 3.0 s, 3 spans, 0 tokens (0 in, 0 of them cached, 0 out) ← "
        "previous(/traces/T4?view=tree) next →(/traces/T1?view=tree) 2 spans failed: see the "
        "first(/traces/T2?view=tree&span=3) . session s1(/traces?filter=session%3Ds1&sort=started) user "
        "bob(/traces?filter=user%3Dbob) output none conversation(/traces/T2) *tree(/traces/T2?view=tree) "
        "raw(/traces/T2?view=raw) Search Kind : all generate tool retrieve embed rerank agent chain guard evaluate "
        "span Choose a span."
    ),
    "/traces/T6?view=raw": (
        "Traces(/traces) / orphan 1970-01-04 00:00:00 UTC, 5.0 s, 1 span, 0 tokens (0 in, 0 of them cached, 0 "
        "out), its root has not come next →(/traces/T5?view=raw) output none conversation(/traces/T6) "
        'tree(/traces/T6?view=tree) *raw(/traces/T6?view=raw) { "spans": [ { "trace_id": "T6", "span_id": '
        '"0000000000000002", "parent_id": "0000000000000001", "name": "orphan", "start_ns": 259200000000000, '
        '"end_ns": 259205000000000, "error": null, "attributes": {}, "scope": "maker", "resource": {} } ] }'
    ),
    "+/traces/T2/span?ref=span:2": (
        "look kind span span 0000000000000003 began 1970-01-02T00:00:11.250+00:00 took 0.500 s error Deep fault "
        'written by maker Data { "attributes": {}, "resource": {} }'
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("received")
    write_traces(folder)
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with entered(home) as made:
        yield made


@pytest.mark.slow
def test_received_traces_are_shown_with_all_their_numbers_and_addresses(client: TestClient) -> None:
    for key, says in PAGES.items():
        assert asked(client, key, {id: f"T{number}" for number, id in T.items()}) == (says, 200), key


def test_a_trace_of_two_conversations_shows_one_and_its_scorer_that_failed(tmp_path: Path) -> None:
    spans = [
        span(7, 1, 0, "root", 0, 9, tag__tags=["b", "a"], openinference__span__kind="CHAIN"),
        span(7, 2, 1, "one", 1, 2, asked="First?", said="Yes", **usage("m", 10, 2, 0.0)),
        span(7, 3, 1, "two", 4, 2, asked="Second?", said="No", **usage("m", 20, 3, 0.0)),
    ]
    taken = TraceStore(tmp_path, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    taken.add_score(f"{7:032x}", "odd", "judge", None, "It broke")
    taken.add_score(f"{7:032x}", "even", "judge", 0.5)
    taken.close()
    names = {f"{7:032x}": "T7"}
    top = (
        "Traces(/traces) / root 1970-01-02 00:00:00 UTC, 9.0 s, 3 spans, 35 tokens (30 in, 0 of them cached, 5 "
        "out) tags b, a "
        "input First? output No scores failed odd: It broke0.5 even *conversation(/traces/T7) tree(/traces/T7?view=tree) "
        "raw(/traces/T7?view=raw) 2 conversations: this is one of them; a message where they part names those beside it. "
    )
    last = "user #2 branch 1(/traces/T7?leaf=1) *2(/traces/T7?leaf=3) Second? assistant #3 No"
    first = "user #0 branch *1(/traces/T7?leaf=1) 2(/traces/T7?leaf=3) First? assistant #1 Yes"
    with entered(tmp_path) as client:
        for key, says in (
            ("", last),
            ("?leaf=1", first),
            ("?leaf=0", first),
            ("?leaf=2", last),
            ("?leaf=-1", last),
            ("?leaf=9", last),
        ):
            assert asked(client, f"/traces/T7{key}", names) == (top + says, 200), key
        listed = asked(client, "+/traces?filter=id:00", names)[0]
        assert listed.endswith(" 9.0 s 3 35 odd failedeven 0.5")
