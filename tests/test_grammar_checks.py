"""Answers from elsewhere are checked against a stranger's grammar in a process that can be ended, and in turn."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import pytest

from firsthand.errors import ConfigError, GrammarUnchecked, ModelError
from firsthand.grammar import Grammar, choice, gbnf, json_schema, lark, regex
from firsthand.message import assistant
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.output_validation import check
from firsthand.providers.scripted import Scripted
from firsthand.system import request_owner
from firsthand.tokens.grammar_checks import GrammarChecks, accepts
from firsthand.tokens.grammar_cost import is_cheap
from firsthand.tokens.isolated_grammar import GrammarLimits
from served import serving, until

AMBIGUOUS = (lark('start: s\ns: s s | "a" | ""'), gbnf('root ::= s\ns ::= s s | "a" | ""'))
RULES = "\n".join(f'r{i}: r{i} "a" | "a"' for i in range(1500))
WIDE = lark(f"start: {' | '.join(f'r{i}' for i in range(1500))}\n{RULES}")
"""Every letter leaves more ways to read the text than llguidance follows."""
SUM = lark('start: e\ne: e "+" e | e "*" e | /[0-9]+/ | "(" e ")"')


@pytest.fixture(scope="module")
def quick() -> GrammarChecks:
    """Checks of a twentieth of a second, and the shared ones, all with processes that have started."""
    checks = GrammarChecks(limits=GrammarLimits(step_s=0.05, rest_s=0.0))
    assert checks.accepts(regex("a"), "a") and accepts(regex("a"), "a")
    return checks


@pytest.fixture(autouse=True)
def started(quick: GrammarChecks) -> None:
    """Nothing waits for a process to start."""


def checked(grammar: Grammar, text: str) -> None:
    asyncio.run(check("m", [Completion(assistant(text), "stop", Usage())], Sampling(grammar=grammar)))


def test_a_text_that_an_ambiguous_grammar_reads_in_cubic_time_is_given_up_in_bounded_time(quick):
    for grammar in AMBIGUOUS:
        assert is_cheap(grammar), "its masks are computed in the engine's process, its texts are not read there"
        with pytest.raises(GrammarUnchecked) as refused:
            quick.accepts(grammar, "a" * 20_000)
        assert str(refused.value) == f"the {grammar.kind} grammar takes more than 0.05 s for one text: make it simpler"
        assert quick.accepts(grammar, "aaa") and not quick.accepts(grammar, "aab"), "nobody has to wait for that"


def test_an_answer_that_cannot_be_checked_is_neither_taken_nor_said_to_ignore_its_grammar():
    with pytest.raises(ModelError) as refused:
        checked(WIDE, "aab")
    assert type(refused.value) is GrammarUnchecked
    assert str(refused.value).startswith(
        "an answer of m with 3 characters cannot be checked against its grammar: the lark grammar is too complex to "
        "follow (Parser Error: Current row has "
    )
    assert str(refused.value).endswith("): make it simpler")


def test_ordinary_grammars_and_long_answers_are_checked_as_before():
    people = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
    long = json.dumps([{"name": "Ada Lovelace"}] * 500, indent=1)
    checked(json_schema(people), long)
    assert not accepts(json_schema(people), long[:-1]) and accepts(json_schema(people), long[:-1], whole=False)
    checked(SUM, "+".join(["12*(3)"] * 4))
    checked(regex("(?s:.*)"), "é" * 10_000)
    checked(choice(["yes", "no"]), "no")
    with pytest.raises(ConfigError):
        accepts(regex("a(?=b)"), "a")


def test_one_owner_does_not_have_all_checks_and_those_who_have_fewest_go_first():
    checks, goes, order = GrammarChecks(2), threading.Event(), list[str]()

    def told(name: str) -> bool:
        order.append(name)
        return True

    held = checks.submit("many", lambda: goes.wait(60))
    more = [checks.submit("many", lambda: told("many")) for _ in range(20)]
    more[0].cancel()
    assert checks.submit("one", lambda: told("one")).result(60) and order == ["one"]
    goes.set()
    assert held.result(60) and all(each.result(60) for each in more[1:])
    assert order == ["one"] + ["many"] * 19, "a check whose client has left is not run"


def test_a_free_place_goes_to_the_owner_with_the_fewest_checks_under_way():
    checks, goes, frees, order, started = GrammarChecks(4), threading.Event(), threading.Event(), [], []

    def held(event: threading.Event) -> bool:
        started.append(1)
        return event.wait(60)

    for owner, event in (("many", goes), ("many", goes), ("one", frees), ("two", goes)):
        checks.submit(owner, lambda event=event: held(event))
    until(lambda: len(started) == 4)
    waiting = [checks.submit(owner, lambda owner=owner: not order.append(owner)) for owner in ("many", "two")]
    frees.set()
    assert all(each.result(60) for each in waiting) and order == ["two", "many"]
    goes.set()


def test_requests_of_a_server_belong_to_their_client():
    owners = list[str]()
    with serving(Scripted(lambda *_: owners.append(request_owner.current()) or "yes"), name="m") as running:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        assert httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        client = running.admission.client(None, None).name
    assert owners == [client] and client, "checks, and models behind an agent or index, are shared between clients"


def test_a_check_that_fails_leaves_its_place_to_the_next():
    checks = GrammarChecks(1)

    def fails() -> bool:
        raise GrammarUnchecked("x")

    for _ in range(3):
        with pytest.raises(GrammarUnchecked):
            checks.submit("a", fails).result(60)
    assert checks.submit("b", lambda: True).result(60)
    assert not checks._waiting and not +checks._running


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_is_told_that_its_grammar_is_too_much(stream: bool):
    body = {"messages": [{"role": "user", "content": "Hi"}], "guided_grammar": WIDE.source, "stream": stream}
    with serving(Scripted(lambda *_: "aab"), name="m") as running:
        answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "grammar_unchecked"
    assert "cannot be checked against its grammar" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_server_answers_others_while_an_ambiguous_grammar_is_checked():
    body = {"messages": [{"role": "user", "content": "Hi"}], "guided_grammar": AMBIGUOUS[1].source}
    with serving(Scripted(lambda *_: "a" * 20_000), name="m") as running:
        found: list[httpx.Response] = []
        url = f"{running.url}/v1/chat/completions"
        asking = threading.Thread(target=lambda: found.append(httpx.post(url, json=body, timeout=120)))
        asking.start()
        others = 0
        while asking.is_alive():
            others += httpx.get(f"{running.url}/health", timeout=60).status_code == 200
        asking.join()
    assert found[0].status_code == 400 and "takes more than 2 s for one text" in found[0].text
    assert others
