"""Bounds on what others can make the Studio do: odd settings of runs, long comparisons, cookies and refused sign-ins."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.studio import trace_difference as difference_module
from firsthand.studio.access import Access
from firsthand.studio.accounts import GUESS_S, GUESSES_OF_ADDRESS, REFUSALS_A_MINUTE, Accounts
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.trace_difference import trace_difference
from firsthand.studio.views.curve_views import MAX_NAME_CHARS, MAX_SETTINGS, flat
from firsthand.studio.views.playground_views import ToldTrial, told_trial
from firsthand.trace import Call, Trace


def attempt(*names: str) -> Trace:
    calls = tuple(
        Call(f":{n}", "tool", None, 0.0, 0.0, "r", detail={"name": name, "arguments": {}})
        for n, name in enumerate(names)
    )
    return Trace("t", "b", "t", {"name": "a", "model": "m"}, 0, 0, "2026-01-01T00:00:00+00:00", 0.0, (), calls=calls)


def test_attempts_whose_calls_alternate_are_compared_in_time_linear_in_them() -> None:
    a, b = attempt(*["t"] * 4000), attempt(*("t" if n % 2 else f"u{n}" for n in range(3990)))
    began = time.process_time()
    found = trace_difference(a, b)
    assert time.process_time() - began < 5  # minutes, if every pair is looked at for every stretch
    assert found.num_same == 1995 and found.first == 0 and len([each for each in found.steps if each.a]) == 4000
    assert len([each for each in found.steps if each.b]) == 3990


def test_steps_paired_in_place_are_told_as_those_that_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = attempt("x", "y", "z", "z"), attempt("x", "q", "z", "z", "w")
    aligned = trace_difference(a, b)
    monkeypatch.setattr(difference_module, "MAX_MATCHES", 0)
    in_place = trace_difference(a, b)
    assert [each.change for each in aligned.steps] == ["same", "removed", "added", "same", "same", "added"]
    assert in_place == aligned
    assert [each.change for each in trace_difference(b, a).steps] == [
        "same",
        "removed",
        "added",
        "same",
        "same",
        "removed",
    ]
    assert trace_difference(attempt(), attempt()).steps == () and trace_difference(a, a).first is None


def test_settings_nested_under_long_names_have_short_ones_and_are_so_many() -> None:
    deep: Any = {f"{n}": n for n in range(MAX_SETTINGS + 500)}
    for _ in range(100):
        deep = {"k" * 10_000: deep}
    found = flat({"lr": 0.1, "deep": deep})
    assert found["lr"] == 0.1 and all(len(name) <= MAX_NAME_CHARS for name in found) and len(found) <= MAX_SETTINGS
    assert len(flat({f"{n}": n for n in range(MAX_SETTINGS + 500)})) == MAX_SETTINGS
    assert len(flat({side: {f"{n}": n for n in range(600)} for side in "ab"})) == MAX_SETTINGS
    assert list(flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == ["a.b", "a.c.d", "e"], "in their order"
    assert flat(5) == {"": 5} and flat({}) == {} and flat({"": {"a": 1}, 3: 2}) == {"a": 1, "3": 2}


@pytest.mark.parametrize(
    "settings",
    [5, ["a"], None, {"models": 5}, {"models": [5]}, {"models": ["a"], "prompt": {"z": 1}}, {"run": {"a": 1}}],
)
def test_a_run_with_other_settings_under_the_playgrounds_name_is_left_out(settings: Any) -> None:
    assert told_trial(settings) is None


def test_the_playground_lists_its_own_runs_beside_odd_ones(tmp_path: Path) -> None:
    assert told_trial({"models": ["a", "b"], "prompt": "hi" * 200}) == ToldTrial("a, b", ("hi" * 200)[:200])
    assert told_trial({"models": [], "prompt": None, "run": "r", "replays": True}) == ToldTrial("", "replays r")
    assert told_trial({"run": "r"}) == ToldTrial("", "continues r")
    for settings in (5, {"models": ["m"], "prompt": "why"}):
        store.create(tmp_path, {"playground": settings}, "x").close()
    access = Access(("testserver",))
    access.port = 80
    app = create_app(tmp_path, access, agents={})
    session = access.exchange(access.new_code())
    with TestClient(app, cookies={access.cookie: session or ""}) as client:
        page = client.get("/playground")
    assert page.status_code == 200 and page.text.count("<tr data-row>") == 1 and "why" in page.text


@pytest.mark.parametrize(
    "other",
    ['x={"a": "b"}', "novalue", "a b", 'x="unclosed', "x=\u00e9", "=v", "", "bad name=1", "a@b=[1]", "{own}=zzz"],
)
def test_a_cookie_of_another_program_locks_nobody_out(other: str) -> None:
    access = Access()
    access.port = 12
    session = access.exchange(access.new_code())
    mine, other = f"{access.cookie}={session}", other.format(own=access.cookie) if "{own}" in other else other
    for line in (f"{other}; {mine}", f"{mine}; {other}", f"{other};{mine};"):
        assert access.knows(Headers({"cookie": line})), line
    assert not access.knows(Headers({"cookie": other})) and not access.knows(Headers({"cookie": f"x{mine}"}))


def test_refused_sign_ins_fill_the_audit_log_slowly_and_none_is_uncounted(tmp_path: Path) -> None:
    now = [1000.0]
    kept = SqliteStore(tmp_path)
    accounts = Accounts(kept, lambda: now[0])

    def listed() -> list[str]:
        return [body["what"] for _, body in kept.logged("audit", 1000)]

    for _ in range(GUESSES_OF_ADDRESS + 10):
        accounts.audit_refusal("ada", "a")
    assert listed() == ["was refused"] * GUESSES_OF_ADDRESS
    now[0] += 60
    accounts.audit_refusal("ada", "a")
    accounts.audit_refusal("ada", "a")
    assert (
        listed()[0] == "was refused, after 10 refusals that are not listed" and len(listed()) == GUESSES_OF_ADDRESS + 1
    )
    now[0] += GUESS_S
    for number in range(REFUSALS_A_MINUTE + 10):
        accounts.audit_refusal("ada", f"other {number}")
    assert len(listed()) == GUESSES_OF_ADDRESS + 1 + REFUSALS_A_MINUTE
    accounts.audit("ada", "signed in")
    assert listed()[0] == "signed in", "other entries are never left out"
    kept.close()
