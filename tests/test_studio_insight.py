"""Tokens by log-prob and entropy, slices of a comparison, quality against cost, prompts with their scores."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import make_run
from firsthand.agent import Agent
from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Message, Sampled, Text, user
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.stats.paired import PairedDifference, paired_difference
from firsthand.stats.power_analysis import paired_tasks_needed, smallest_detectable
from firsthand.studio.access import Access
from firsthand.studio.comparison_slices import cost_plots, metadata_keys, slices_of
from firsthand.studio.prompt_library import PromptLibrary, tried_in
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.token_colours import entropy_of, laid_out, tokens_of
from firsthand.studio.views.comparison_views import contest_of, is_open, sides_of, tasks_to_decide
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace

PORT = 8127
OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("insight")
    make_run.make(folder)
    with store.create(folder, {}, "coloured") as run:
        run.append(sampled_trace())
    with store.create(folder, {}, "levels") as run:
        run.add_tasks("quiz", [Task(f"t{n}", f"{n}?", metadata={"level": n % 2, "id": n}) for n in range(40)])
        for agent, right, tokens in (("old", lambda n: n % 2 == 0, 10), ("new", lambda n: n % 2 == 1, 100)):
            run.add_agent(agent, {"name": agent})
            for number in range(40):
                call = Call(":0", "generate", None, 0.0, 1.0, "0" * 64, Usage(tokens, 0, 0))
                run.append(
                    Trace(f"{agent}{number}", "quiz", f"t{number}", {"name": agent}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
                          calls=(call,), answer="x", scores=(Score("exact", float(right(number))),))
                )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    model = Scripted(lambda messages, sampling, index: f"Answer: {len(messages)}", name="scripted:count")
    app = create_app(home, access, {"scripted:count": Agent("scripted:count", model, reply)})
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as made:
        made.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        yield made


def run_id(home: Path, name: str) -> str:
    return next(info.id for info in store.list_runs(home) if name in info.id)


def sampled_trace() -> Trace:
    """An answer of three tokens and an end, the second of them not among its alternatives."""
    logprobs = (math.log(0.95), math.log(0.004), math.log(0.3), math.log(0.99))
    top = [
        [[" yes", math.log(0.95)], [' "no"', math.log(0.05)]],
        [[" it", math.log(0.6)], [" so", math.log(0.3)]],
        [[" <b>", math.log(0.3)], [" is", math.log(0.25)]],
        [["<|end|>", math.log(0.99)]],
    ]
    message = Message("assistant", (Text(" yes was <b>"),), sampled=Sampled((1, 2, 3, 4), logprobs))
    call = Call(
        ":0", "generate", 0, 0.0, 1.0, "0" * 64, Usage(1, 0, 4), (1,),
        detail={"top_logprobs": [top], "finish_reasons": ["stop"]},
    )  # fmt: skip
    return Trace(
        "coloured", "quiz", "t", {"name": "a"}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0,
        (Node(None, user("q")), Node(0, message)), (call,), answer="yes",
    )  # fmt: skip


# -- tokens --


def test_tokens_lie_on_the_text_and_one_that_is_not_known_gets_what_is_between() -> None:
    found = tokens_of(sampled_trace(), 1)
    assert [token.text for token in found] == [" yes", " was", " <b>", ""]
    assert [token.logprob_step for token in found] == [0, 4, 2, 0]
    assert found[0].entropy == pytest.approx(-0.95 * math.log(0.95) - 0.05 * math.log(0.05))
    assert [token.entropy_step for token in found] == [1, 2, 3, 0]
    assert found[2].others[0] == (" <b>", pytest.approx(0.3))
    assert tokens_of(sampled_trace(), 0) == ()


def test_entropy_counts_the_rest_of_the_probability_as_one_outcome() -> None:
    assert entropy_of([math.log(0.5), math.log(0.25)]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert entropy_of([0.0]) == 0.0 and entropy_of([float("-inf"), 0.0]) == 0.0 and entropy_of([]) == 0.0


def test_tokens_that_do_not_fit_the_text_colour_nothing() -> None:
    assert laid_out("other words", ["a", "b", "c"]) is None
    assert laid_out("abc", [None, None, None]) is None
    assert laid_out("abXc", ["a", "b", None, "c"]) == ["a", "b", "X", "c"]
    assert laid_out("ab tail", ["a", "b"]) == ["a", "b tail"]
    assert laid_out("", []) is None


@given(st.lists(st.tuples(st.text("ab ", min_size=1, max_size=4), st.booleans()), min_size=1, max_size=30))
def test_pieces_joined_are_the_text(tokens: list[tuple[str, bool]]) -> None:
    text = "".join(token for token, _ in tokens)
    found = laid_out(text, [token if known else None for token, known in tokens])
    assert found is None or ("".join(found) == text and len(found) == len(tokens))


@pytest.mark.slow
def test_a_conversation_is_coloured_and_its_texts_stay_text(client: TestClient, home: Path) -> None:
    base = f"/runs/{run_id(home, 'coloured')}/attempts/coloured"
    assert "Colour tokens by" in client.get(base).text and 'class="tokens"' not in client.get(base).text
    by_logprob = client.get(base, params={"colour": "logprob"}).text
    assert re.search(r'<span class="t4" title="log-prob -5.521[^"]*"> was</span>', by_logprob)
    assert "<b> " not in by_logprob.partition('class="tokens"')[2][:2000] and "&lt;b&gt;" in by_logprob
    assert '\\"no\\"' not in by_logprob and "&#34;" in by_logprob, "quotes do not end the attribute"
    assert re.search(r'<span class="t2"[^>]*> was</span>', client.get(base, params={"colour": "entropy"}).text)
    assert client.get(base, params={"colour": "red"}).status_code == 400


# -- slices and cost --


def test_slices_show_what_the_whole_hides(client: TestClient, home: Path) -> None:
    with store.open_run(run_id(home, "levels"), home) as run:
        old, new = sides_of([run])
        contest = contest_of(old, new)
        assert contest.differences["quiz"].difference == 0
        keys = metadata_keys(run, ["quiz"])
        assert list(keys) == ["level"], "a key with another value for each task is none to slice by"
        slices = slices_of(contest.comparison, keys["level"])
    assert [(each.value, each.difference.n, each.difference.difference) for each in slices] == [
        ("0", 20, -1),
        ("1", 20, 1),
    ]
    assert [each.difference.verdict for each in slices] == ["worse", "better"]
    assert [(each.before, each.after) for each in slices] == [(1, 0), (0, 1)]
    page = client.get("/compare", params={"run": run_id(home, "levels"), "slice": "level", "only": "all"}).text
    assert "By level" in page and "Holm-corrected over the 2 slices" in page
    answer = client.get("/compare", params={"run": run_id(home, "levels"), "slice": "colour"})
    assert answer.status_code == 400 and "they have level" in answer.text


def test_agents_stand_by_quality_and_cost_with_the_frontier(client: TestClient, home: Path) -> None:
    with store.open_run(run_id(home, "levels"), home) as run:
        points, unit = cost_plots([(run, "old", "old"), (run, "new", "new")], ["quiz"])[0][1:]
        alone, _ = cost_plots([(run, "old", "old")], ["quiz"])[0][1:]
    assert unit == "tokens"
    assert [(p.name, p.score, p.cost, p.x, p.y, p.on_frontier) for p in points] == [
        ("old", 0.5, 10, 5, 50, True),
        ("new", 0.5, 100, 95, 50, False),
    ]
    assert (alone[0].x, alone[0].y) == (50, 50)
    page = client.get("/compare", params={"run": run_id(home, "fixture")}).text
    assert page.count('<svg class="plot-scatter"') == 2 and "on it" in page


# -- prompts --


def test_a_run_that_names_a_prompt_without_its_version_is_left_out() -> None:
    named = [SimpleNamespace(config={"prompt": "terse", **more}, scores=()) for more in ({}, {"prompt_version": "x"})]
    tried = SimpleNamespace(config={"prompt": "terse", "prompt_version": 2}, scores=())
    assert [each.version for each in tried_in("terse", [*named, tried])] == [2]


def test_a_prompt_has_versions_and_an_old_edit_is_refused(tmp_path: Path) -> None:
    prompts = PromptLibrary(SqliteStore(tmp_path))
    assert prompts.add("terse", "Be brief.", "ada") == 1
    assert prompts.add("terse", "Be brief.", "ada") == 1
    assert prompts.add("terse", "Be very brief.", "bob", "shorter", after=1) == 2
    with pytest.raises(ConfigError, match="2 versions by now"):
        prompts.add("terse", "Be long.", "cy", after=1)
    assert [(v.number, v.by, v.note) for v in prompts.versions("terse")] == [(1, "ada", ""), (2, "bob", "shorter")]
    assert prompts.text("terse")[1:] == (2, "Be very brief.") and prompts.text("terse@1")[1:] == (1, "Be brief.")
    for wrong in ("terse@3", "terse@0", "other"):
        with pytest.raises(UnknownName):
            prompts.text(wrong)
    for text in (" ", "x" * 50_001):
        with pytest.raises(ConfigError):
            prompts.add("terse", text, "ada")


@pytest.mark.slow
def test_a_prompt_is_tried_on_a_data_set_and_its_scores_stand_by_version(client: TestClient, home: Path) -> None:
    def post(path: str, **fields: Any) -> Any:
        return client.post(path, data=fields, headers=OWN)

    assert "There are none yet" in client.get("/prompts").text
    post("/data-sets", name="sums", run=run_id(home, "fixture"), filter="benchmark=plain task=t1")
    post("/prompts", name="say it", text="Say <it> again\r\nNow.")
    for text in ("", "Say that again\nNow."):
        if text:
            post("/prompts", name="say it", text=text, after="1", note="all")
        post("/data-sets/sums/run", model="scripted:count", check="numeric", prompt="say it")
        assert client.portal is not None
        client.portal.call(client.app.state.playground.settled)  # type: ignore[attr-defined]
    page = client.get("/prompts/say%20it").text
    assert re.findall(r'<td class="right">(\d)</td><th scope="row"><a href="/runs/', page) == ["2", "1"]
    assert "1.000" in page and re.search("<del>[^/]*it[^/]*</del>", page) and re.search("<ins>[^/]*that", page), page[
        -3000:
    ]
    runs = re.findall(r'name="run" value="([^"]+)"', page)
    with store.open_run(runs[1], home) as first:
        assert next(first.traces()).messages(0)[0].text == "Say <it> again\nNow."
    assert client.get("/compare", params={"run": runs}).status_code == 200
    assert client.get("/prompts/other").status_code == 404


def between(a: list[float], b: list[float]) -> PairedDifference:
    return paired_difference(*({str(task): [value] for task, value in enumerate(each)} for each in (a, b)))


def test_an_undecided_comparison_says_how_many_tasks_would_decide() -> None:
    six = between([1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0])
    needed = tasks_to_decide(six)
    assert is_open(six) and needed == paired_tasks_needed(1 / 6, 2 / 8) == 75
    assert smallest_detectable(needed, disagreement=2 / 8) == pytest.approx(1 / 6, abs=0.01)
    a, b = [0.2, 0.9, 0.5, 0.4, 0.8], [0.5, 0.7, 0.8, 0.2, 0.9]
    graded = between(b, a)
    assert graded.verdict == "inconclusive"
    assert tasks_to_decide(graded) == math.ceil(5 * (graded.detectable / abs(graded.difference)) ** 2)
    assert tasks_to_decide(between([1, 0], [1, 0])) is None
    assert not is_open(between([1] * 20, [0] * 20))
