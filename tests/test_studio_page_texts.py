"""The whole text of each page of the Studio for a small home in which no two numbers are equal: runs and comparisons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from firsthand.runs import store
from studio_page_outline import asked
from studio_small_home import entered
from studio_varied_home import write_runs

Shown = tuple[TestClient, dict[str, str]]
RUN_PAGES = {
    "/?sort=-tokens": (
        "Runs [get / Filter {filter=} {sort=-tokens} Filter ] status interrupted2 2 of 2 runs columns marked "
        "run(/?sort=-created) status(/?sort=-status) benchmarks agents scores(/?sort=-score) "
        "attempts(/?sort=-attempts) errors(/?sort=-errors) tokens(/?sort=tokens) steps(/?sort=-steps) "
        "SECOND(/runs/SECOND) interrupted 0.67 ann0.50 cat 4 996 FIRST(/runs/FIRST) interrupted 0.50 ann0.00 bob 5 "
        "1(/runs/FIRST?filter=has%3Aerror#attempts) 771"
    ),
    "+/?filter=model:m-cat": (
        "0 of 2 runs columns marked run(/?filter=model%3Am-cat&sort=-created) "
        "status(/?filter=model%3Am-cat&sort=-status) benchmarks agents scores(/?filter=model%3Am-cat&sort=-score) "
        "attempts(/?filter=model%3Am-cat&sort=-attempts) errors(/?filter=model%3Am-cat&sort=-errors) "
        "tokens(/?filter=model%3Am-cat&sort=-tokens) steps(/?filter=model%3Am-cat&sort=-steps) No run fulfils this "
        "filter."
    ),
    "+/?start=1": "FIRST(/runs/FIRST) interrupted 0.50 ann0.00 bob 5 1(/runs/FIRST?filter=has%3Aerror#attempts) 771",
    "/runs/SECOND?sort=-cost": (
        "Runs(/) / SECOND interrupted MADE UTC, 4 attempts, 996 tokens, compare its "
        "agents(/compare?run=SECOND) , tasks by agents(/compare/grid?run=SECOND) what changed since "
        "FIRST(/compare?run=FIRST&run=SECOND) , the last run before it of the same benchmark and agent Note [post "
        '/runs/SECOND/note {version=0} {text=} Keep the note ] Command and settings firsthand run second { "lr": 4 '
        "} Scores are computed … Attempts [get /runs/SECOND Filter {filter=} {sort=-cost} Filter ] let people rate "
        "these(/queues?run=SECOND) add their tasks to a data set [post /data-sets {run=SECOND} attempts {filter=} "
        "data set {name=} Add ] benchmark quiz4 agent ann3 cat1 is wrong3 right1 stop done4 4 attempts columns "
        "marked task(/runs/SECOND?sort=-task) agent(/runs/SECOND?sort=-agent) score(/runs/SECOND?sort=-score) "
        "ended by(/runs/SECOND?sort=-stop) tokens(/runs/SECOND?sort=-tokens) calls(/runs/SECOND?sort=-calls) "
        "time(/runs/SECOND?sort=-seconds) cost(/runs/SECOND?sort=cost) quiz / "
        "t1(/runs/SECOND/attempts/p1?sort=-cost) ann 0.75 done 236 1 5.0 s $4.00 quiz / "
        "t0(/runs/SECOND/attempts/p0?sort=-cost) ann 0.25 done 225 1 3.0 s $2.00 quiz / "
        "t2(/runs/SECOND/attempts/p3?sort=-cost) cat 0.5 done 278 1 9.0 s $0.75 quiz / "
        "t2(/runs/SECOND/attempts/p2?sort=-cost) ann 1 done 257 1 7.0 s $0.50"
    ),
    "+/runs/FIRST?start=3": (
        "quiz / t0(/runs/FIRST/attempts/p3) NetError: The net broke bob error error 150 1 4.0 s quiz / "
        "t2(/runs/FIRST/attempts/p4) bob 0 done 200 1 8.0 s $1.00"
    ),
    "+/runs/FIRST?filter=is:failed&sort=task": (
        "benchmark quiz1 agent bob1 is failed1 stop error1 1 attempt columns marked "
        "task(/runs/FIRST?filter=is%3Afailed&sort=-task) agent(/runs/FIRST?filter=is%3Afailed&sort=-agent) "
        "score(/runs/FIRST?filter=is%3Afailed&sort=-score) ended by(/runs/FIRST?filter=is%3Afailed&sort=-stop) "
        "tokens(/runs/FIRST?filter=is%3Afailed&sort=-tokens) calls(/runs/FIRST?filter=is%3Afailed&sort=-calls) "
        "time(/runs/FIRST?filter=is%3Afailed&sort=-seconds) cost(/runs/FIRST?filter=is%3Afailed&sort=-cost) quiz / "
        "t0(/runs/FIRST/attempts/p3?filter=is%3Afailed&sort=task) NetError: The net broke bob error error 150 1 "
        "4.0 s"
    ),
    "/runs/FIRST/attempts/p0?filter=agent:ann": (
        "Runs(/) / FIRST(/runs/FIRST?filter=agent%3Aann) / quiz / t0 ann, 1.5 s, 120 tokens (100 in, 10 of them "
        "cached, 20 out), $0.50, done next →(/runs/FIRST/attempts/p1?filter=agent%3Aann) question Q0? expected 0 "
        "answer the answer 0 scores 1 exact *conversation(/runs/FIRST/attempts/p0?filter=agent%3Aann) "
        "tree(/runs/FIRST/attempts/p0?view=tree&filter=agent%3Aann) "
        "raw(/runs/FIRST/attempts/p0?view=raw&filter=agent%3Aann) 2 branches: this is one of them; a message where "
        "the attempt forked names those beside it. user #0 continue from "
        "here(/playground?run=FIRST&attempt=p0&at=0) Ask t0 assistant #2 continue from "
        "here(/playground?run=FIRST&attempt=p0&at=2) branch 1(/runs/FIRST/attempts/p0?leaf=1&filter=agent%3Aann) "
        "*2(/runs/FIRST/attempts/p0?leaf=2&filter=agent%3Aann) ann says 0"
    ),
    "/runs/FIRST/attempts/p2?filter=agent:ann&sort=-score&view=tree": (
        "Runs(/) / FIRST(/runs/FIRST?filter=agent%3Aann&sort=-score) / quiz / t1 ann, 500 ms, 170 tokens (130 in, "
        "0 of them cached, 40 out), $0.12, done ← "
        "previous(/runs/FIRST/attempts/p1?filter=agent%3Aann&sort=-score&view=tree) question Q1? expected 1 answer "
        "the answer 2 scores 0.25 exact conversation(/runs/FIRST/attempts/p2?filter=agent%3Aann&sort=-score) "
        "*tree(/runs/FIRST/attempts/p2?view=tree&filter=agent%3Aann&sort=-score) "
        "raw(/runs/FIRST/attempts/p2?view=raw&filter=agent%3Aann&sort=-score) Search Kind : all generate tool "
        "score memory guard event Choose a span."
    ),
    "/runs/FIRST/attempts/p3?leaf=1": (
        "Runs(/) / FIRST(/runs/FIRST) / quiz / t0 bob, 4.0 s, 150 tokens (150 in, 15 of them cached, 0 out), error "
        "← previous(/runs/FIRST/attempts/p2) next →(/runs/FIRST/attempts/p4) NetError: The net broke question Q0? "
        "expected 0 answer the answer 3 scores none *conversation(/runs/FIRST/attempts/p3) "
        "tree(/runs/FIRST/attempts/p3?view=tree) raw(/runs/FIRST/attempts/p3?view=raw) 2 branches: this is one of "
        "them; a message where the attempt forked names those beside it. user #0 continue from "
        "here(/playground?run=FIRST&attempt=p3&at=0) Ask t0 assistant #1 continue from "
        "here(/playground?run=FIRST&attempt=p3&at=1) branch *1(/runs/FIRST/attempts/p3?leaf=1) "
        "2(/runs/FIRST/attempts/p3?leaf=2) a draft"
    ),
    "+/runs/FIRST/attempts/p0/span?ref=call:0": (
        "generate kind generate effect :0 began 0.250 s took 0.750 s prompt tokens 100 cached tokens 10 answer "
        "tokens 20 cost $0.500000 user #0, asked Ask t0 assistant #1, answered a draft assistant #2, answered ann "
        "says 0"
    ),
    "+/runs/nosuch": "no run 'nosuch'; `firsthand runs` shows all",
    "/runs/nosuch": "Problem no run 'nosuch'; `firsthand runs` shows all All runs(/)",
    "/nothing": "Not found There is no page '/nothing'. All runs(/)",
}
COMPARISONS = {
    "/compare?run=SECOND&run=FIRST&slice=level&only=all": (
        "Compare [get /compare {run=SECOND} {run=FIRST} baseline a: *FIRST/ann FIRST/bob SECOND/ann SECOND/cat "
        "against b: FIRST/ann FIRST/bob *SECOND/ann SECOND/cat tasks only: changed worse better same *all slices "
        "by slice: nothing *level Compare tasks by agents(/compare/grid?run=SECOND&run=FIRST&) ] SECOND/ann "
        "against FIRST/ann; brackets are 95% CIs, an error counts 0. benchmark tasks difference 95% CI verdict won "
        "lost same quiz 2 +0.000 [-1.00, +1.00] ● inconclusive p=1.000 1 1 0 quiz is undecided: 2 tasks show no "
        "difference with 80% power. No difference was seen. Not paired: 0 tasks of the baseline alone, 1 of the "
        "other alone. By level The largest loss first; p-values are Holm-corrected over the 2 slices, and the "
        "intervals hold together. level benchmark tasks before after difference 95% CI verdict easy quiz 1 0.750 "
        "0.250 -0.500 [-0.99, +0.98] ● inconclusive p=1.000 hard quiz 1 0.250 0.750 +0.500 [-0.98, +0.99] ● "
        "inconclusive p=1.000 quiz: quality against USD for each attempt (picture) agent score USD per attempt "
        "frontier FIRST/ann 0.500 0.2917 on it FIRST/bob 0.000 0.5 SECOND/cat 0.500 0.75 SECOND/ann 0.667 2.167 on "
        "it 2 tasks task change before after attempts quiz / "
        "t0(/compare/attempts?run_a=FIRST&a=p0&run_b=SECOND&b=p0) ▼ worse 0.75 0.25 "
        "before(/runs/FIRST/attempts/p0) after(/runs/SECOND/attempts/p0) quiz / "
        "t1(/compare/attempts?run_a=FIRST&a=p2&run_b=SECOND&b=p1) ▲ better 0.25 0.75 "
        "before(/runs/FIRST/attempts/p2) after(/runs/SECOND/attempts/p1)"
    ),
    "+/compare?run=SECOND&run=FIRST&only=all&start=1": (
        "quiz / t1(/compare/attempts?run_a=FIRST&a=p2&run_b=SECOND&b=p1) ▲ better 0.25 0.75 "
        "before(/runs/FIRST/attempts/p2) after(/runs/SECOND/attempts/p1)"
    ),
    "/compare/attempts?run_a=FIRST&a=p0&run_b=SECOND&b=p1": (
        "Compare(/compare?run=FIRST&run=SECOND) / quiz / t0 question Q0? expected 0 before ann of "
        "FIRST(/runs/FIRST/attempts/p0) : 1 exact 120 tokens after ann of SECOND(/runs/SECOND/attempts/p1) : 0.75 "
        "exact 236 tokens Answers, word by word the answer 0 1 Steps 0 of 1 steps are the same; they part at step "
        "1. # change call before after 1 changed generate a draft | ann says 0 a draft | ann says 1"
    ),
    "/compare/attempts?run_a=FIRST&a=p3&run_b=FIRST&b=p1": (
        "Compare(/compare?run=FIRST) / quiz / t0 question Q0? expected 0 before bob of "
        "FIRST(/runs/FIRST/attempts/p3) : NetError: The net broke 150 tokens after ann of "
        "FIRST(/runs/FIRST/attempts/p1) : 0.5 exact 131 tokens Answers, word by word the answer 3 1 Steps 0 of 1 "
        "steps are the same; they part at step 1. # change call before after 1 changed generate a draft | bob says "
        "3 a draft | ann says 1"
    ),
    "/compare/grid?run=SECOND&run=FIRST": (
        "Compare(/compare?run=SECOND&run=FIRST&) / Tasks by agents Tasks that tell the agents apart come first. "
        "task annSECOND catSECOND annFIRST bobFIRST quiz / t2 1.00 0.50 - 0.00 quiz / t0 0.25 - 0.75 0.00 quiz / "
        "t1 0.75 - 0.25 -"
    ),
    "/compare?run=FIRST&a=FIRST/bob&b=FIRST/ann&only=better": (
        "Compare [get /compare {run=FIRST} baseline a: FIRST/ann *FIRST/bob against b: *FIRST/ann FIRST/bob tasks "
        "only: changed worse *better same all slices by slice: nothing level Compare tasks by "
        "agents(/compare/grid?run=FIRST&) ] FIRST/ann against FIRST/bob; brackets are 95% CIs, an error counts 0. "
        "benchmark tasks difference 95% CI verdict won lost same quiz 1 +0.750 [-0.96, +0.99] ● inconclusive "
        "p=1.000 1 0 0 quiz is undecided: 1 task shows no difference with 80% power. Not paired: 1 tasks of the "
        "baseline alone, 1 of the other alone. quiz: quality against USD for each attempt (picture) agent score "
        "USD per attempt frontier ann 0.500 0.2917 on it bob 0.000 0.5 1 task got better task change before after "
        "attempts quiz / t0(/compare/attempts?run_a=FIRST&a=p3&run_b=FIRST&b=p0) ▲ better 0 0.75 "
        "before(/runs/FIRST/attempts/p3) after(/runs/FIRST/attempts/p0)"
    ),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    home = tmp_path_factory.mktemp("varied")
    first, second = write_runs(home)
    made = {info.created_at[:19].replace("T", " "): "MADE" for info in store.list_runs(home)}
    with entered(home) as client:
        yield client, {first: "FIRST", second: "SECOND", **made}


def test_runs_and_attempts_are_shown_with_all_their_numbers_and_addresses(shown: Shown) -> None:
    for key, says in RUN_PAGES.items():
        status = 404 if key in ("/runs/nosuch", "/nothing") else 200
        assert asked(shown[0], key, shown[1]) == (says, status), key


def test_comparisons_show_each_side_with_its_own_numbers(shown: Shown) -> None:
    for key, says in COMPARISONS.items():
        assert asked(shown[0], key, shown[1]) == (says, 200), key
