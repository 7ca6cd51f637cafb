"""The claims about the steps of RAG patterns: what each asks of scripted models, and what it reads from their searches."""

import math
from dataclasses import replace

import pytest

from firsthand.claims import scripted_rag
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab
from firsthand.claims.llmops import three_agent_rag
from firsthand.claims.patterns import (
    hyde_query,
    multi_query_merge,
    naive_rag_steps,
    recursive_rag_decides,
    self_rag_reflects,
)
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.stats.intervals import proportion_interval
from firsthand.trace import Call, Trace


def call(kind, **detail):
    return Call("0:0", kind, 0, 0.0, 0.0, "r", detail=detail)


def attempt_of(*kinds, answer="", searched=()):
    """An attempt with these kinds of calls, and reads of a corpus with these queries."""
    calls = [call(kind) for kind in kinds]
    calls += [call("tool", name="retrieve", items=[], arguments={"query": query}) for query in searched]
    calls = [replace(each, id=f":{at}") for at, each in enumerate(calls)]
    return Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, calls=tuple(calls), answer=answer)


def asking(monkeypatch, module, *given):
    """Gives these attempts in turn for those that a claim asks for; returns what it asked."""
    asked, left = [], list(given)

    def answered(lab, pattern, replies, *, score=None, settings=None):
        asked.append((lab.seed, pattern, dict(replies), score, settings))
        return left.pop(0)

    monkeypatch.setattr(module, "answered", answered)
    return asked


def test_a_failure_is_safe_if_the_answer_is_right_or_says_that_the_documents_do_not_answer(monkeypatch):
    right, unknown, wrong = "built in 1871", NOT_IN_DOCUMENTS, "built in 1412"
    team = [right, unknown, wrong, right, right, f"{unknown} perhaps", wrong]
    alone = [right, right, unknown, wrong, wrong, wrong, ""]
    attempts = []
    for at, (one, other) in enumerate(zip(team, alone, strict=True)):
        attempts += [attempt_of(*["generate"] * (at + 2), answer=one), attempt_of("generate", "tool", answer=other)]
    asked = asking(monkeypatch, scripted_rag, *attempts)
    names = [
        "no failure", "coordinator asks the same again", "coordinator writes nothing", "retrieval finds nothing",
        "retrieval finds the wrong document", "reasoning ignores the passages", "reasoning misreads a number",
    ]  # fmt: skip
    safe = [(1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    assert three_agent_rag.measure(Lab(4)) == Measurement(
        0.5,
        "failures after which the team's answer is right, or says that the documents do not answer",
        *proportion_interval(3, 6),
        6,
        columns=("failure", "team is safe", "one agent is safe", "team: calls in a row", "one agent: calls in a row"),
        rows=tuple((name, *each, at + 2.0, 2.0) for at, (name, each) in enumerate(zip(names, safe, strict=True))),
    )
    terms = {"search": "lexical"}
    assert asked[:2] == [
        (4, "team", {"You coordinate a team": "mill built", "The search for": "READY",
                     "": "The mill was built in 1871. [1]"}, None, terms),
        (4, "naive", {"": "The mill was built in 1871. [1]"}, None, terms),
    ]  # fmt: skip
    said = [
        (replies.get("You coordinate a team"), replies.get("The search for"), replies[""])
        for *_, replies, _, _ in asked
    ]
    assert said[::2] == list(three_agent_rag.FAILURES.values())
    assert said[1::2] == [(None, None, each[2]) for each in three_agent_rag.FAILURES.values()]


def test_steps_of_rag_patterns_are_read_from_what_was_searched(monkeypatch):
    q = scripted_rag.QUESTION
    told = "The mill was built in 1871. [1]"
    plain = [attempt_of("generate", searched=[q]), attempt_of("generate", "generate", searched=[q]),
             attempt_of("generate", searched=["q"]), attempt_of("generate", searched=[q, q])]  # fmt: skip
    asked = asking(monkeypatch, naive_rag_steps, *plain)
    found = [naive_rag_steps.measure(Lab(3)) for _ in plain]
    assert [each.value for each in found] == [1.0, 0.0, 0.0, 0.0] and asked[0] == (3, "naive", {"": told}, None, None)
    assert found[0] == Measurement(
        1.0, "1 if one search with the question comes before one generation", columns=("step", "count"),
        rows=(("searches", 1.0), ("generations", 1.0)),
    )  # fmt: skip
    assert (found[1].rows, found[3].rows[0]) == ((("searches", 1.0), ("generations", 2.0)), ("searches", 2.0))
    long = "w" * 90
    asked = asking(monkeypatch, multi_query_merge, attempt_of(searched=["a", long, "a", "b"]))
    assert multi_query_merge.measure(Lab(3)) == Measurement(
        3, "different queries of one question", columns=("query",), rows=(("a",), (long[:80],), ("a",), ("b",))
    )
    lines = "1. year the mill was built\n2. construction of the mill"
    assert asked == [(3, "multi_query", {"numbered list": lines, "different": lines, "": told}, None, None)]
    for first, again, value in ((["a"], ["b", "c"], 1.0), (["a", "b"], ["c", "d"], 0.0), (["a", "b"], [], 1.0)):
        asked = asking(monkeypatch, recursive_rag_decides, attempt_of(searched=first), attempt_of(searched=again))
        assert recursive_rag_decides.measure(Lab(3)) == Measurement(
            value, "1 if the model's words change the number of searches", columns=("model", "searches"),
            rows=(("has enough", float(len(first))), ("asks on", float(len(again)))),
        )  # fmt: skip
    assert [(pattern, replies) for _, pattern, replies, *_ in asked] == [
        ("recursive", {"write DONE": "DONE", "": told}), ("recursive", {"write DONE": "who owned the mill", "": told}),
    ]  # fmt: skip
    asked = asking(monkeypatch, scripted_rag, attempt_of(searched=["a", "b", "c"]), attempt_of(searched=["d"]))
    assert self_rag_reflects.measure(Lab(3)) == Measurement(
        2.0, "searches of a model that wants passages, less those of one that does not", columns=("model", "searches"),
        rows=(("wants passages with 90%", 3.0), ("wants passages with 5%", 1.0)),
    )  # fmt: skip
    chances = [
        [math.exp(score("p", word)) for word in ("yes", "no", "relevant", "fully", "5", "x")] for *_, score, _ in asked
    ]
    assert chances[0] == pytest.approx([0.9, 0.1, 0.8, 0.7, 0.9, 0.02])
    assert chances[1] == pytest.approx([0.05, 0.95, 0.8, 0.7, 0.9, 0.02])
    assert [each[1:3] for each in asked] == [("self_rag", {"": "The mill was built in 1871."})] * 2
    model = attempt_of("generate", "generate", searched=["a"])
    asked = asking(monkeypatch, hyde_query, model)
    assert hyde_query.measure(Lab(3)) == hyde_query._measured(model)
    made_up = "A mill was built in 1850 beside the river."
    assert asked == [(3, "hyde", {"passage": made_up, "": told}, None, None)]
