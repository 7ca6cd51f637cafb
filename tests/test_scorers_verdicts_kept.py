"""Judgements of answers, pairs and retrieval from the judge's reply to the score that is kept, and why there may be none."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.loop.concurrency import Retry, derive_seed
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message
from firsthand.patterns.parts.constitution import Principle
from firsthand.providers.scripted import Scripted
from firsthand.scorers import model_judge, rag_judgements
from firsthand.scorers.concerns.principle_labels import TEXT, answer_pairs, label_pair
from firsthand.scorers.model_judge import JudgeScorer, _of_kind, _protection, judged_by, pairwise, reference, rubric
from firsthand.scorers.rag_judgements import RagJudge, answer_relevance, context_precision, faithfulness
from firsthand.scorers.rankings.retrieved import RETRIEVE
from firsthand.task import Task
from firsthand.trace import Call, Failure, Score, Trace


def trace(answer: str | None = "", *, id: str = "i", task_id: str = "t", epoch: int = 0, **more: Any) -> Trace:
    return Trace(id, "b", task_id, {"name": "a"}, epoch, 0, "", 0.0, answer=answer, **more)


def without_trace(score: Score) -> dict[str, Any]:
    return {name: value for name, value in score.detail.items() if name != "trace"}


def test_a_rating_is_the_mean_of_its_scale_by_the_judges_probabilities() -> None:
    made: Any = rubric(judge="scripted:echo", low=2, high=4, rubric="Be short.")
    chances = {"2": 0.5, "3": 0.25, "4": 0.25}
    judge = judged_by(made, Scripted(score=lambda prompt, text: math.log(chances[text.strip("[] ")])))
    journal = MemoryJournal()
    found = asyncio.run(judge.judged(Task("t", "Q?", secret={"answer": "ref"}), trace("ours", epoch=2), journal))
    inner = found.detail["trace"]
    assert (found.name, found.value, found.failure) == ("rubric", pytest.approx(2.75), None)
    told = without_trace(found)
    assert told.pop("tokens") == sum(call["usage"]["prompt_tokens"] for call in inner["calls"]) > 0
    assert told == {
        "judge": "scripted", "protocol": "rubric", "calls": 1, "cost_usd": 0.0, "verdict": "2", "probabilities": chances,
        "by": "logprob", "mass": 1.0,
    }  # fmt: skip
    assert (inner["benchmark"], inner["epoch"], inner["task_id"]) == ("judgement of b", 2, "t")


def test_a_judge_without_a_verdict_fails_with_its_reason_and_its_cost() -> None:
    made: Any = rubric(judge="scripted:echo", limit_tokens=1, how="words")
    unasked = asyncio.run(judged_by(made, Scripted(["x"]))(Task("t", "Q?"), trace("ours")))
    assert unasked.failure is not None and unasked.failure.startswith(
        "the judge gave no verdict: the model was never asked: a call needs "
    )
    assert (unasked.name, unasked.value, unasked.detail["calls"], unasked.unjudged) == ("rubric", 0.0, 0, True)
    made = rubric(judge="scripted:echo")
    dead = judged_by(made, Scripted(error=ModelError("gone")), retry=Retry(1))
    gone = asyncio.run(dead(Task("t", "Q?"), trace("ours")))
    assert gone.failure == "the judge gave no verdict: gone" and gone.detail["trace"]["error"]["message"] == "gone"
    for judge, cost in ((unasked, {"calls": 0, "tokens": 0}), (gone, {"calls": 6, "tokens": 0})):
        assert without_trace(judge) == {"judge": "scripted", "protocol": "rubric", "cost_usd": 0.0, **cost}
        inner = judge.detail["trace"]
        assert (inner["benchmark"], inner["task_id"], len(inner["calls"])) == ("judgement of b", "t", cost["calls"])
    alone: Any = pairwise(judge="scripted:echo", against="base")
    assert asyncio.run(alone(Task("t", "Q?"), trace("ours"))) == Score(
        "pairwise", 0.0, {}, failure="base has no attempt at t to compare with", unjudged=True
    )


def test_pairs_find_the_rival_of_the_same_benchmark_task_and_epoch() -> None:
    made: Any = pairwise(judge="scripted:echo", against="base")
    rivals = {("b", "t", 1): trace("theirs", id="r"), ("b", "u", 0): trace(error=Failure("E", "m"))}
    judge = JudgeScorer("pairwise", made.agent, "pairwise", against="base", rivals=rivals)
    assert judge.rival_of(trace(epoch=1)) is rivals["b", "t", 1]
    assert [judge.rival_of(each) for each in (trace(), trace(epoch=1, task_id="u"), trace(task_id="u"))] == [None] * 3
    assert judge.rival_of(Trace("i", "other", "t", {}, 1, 0, "", 0.0)) is None and made.rival_of(trace()) is None
    won = Score("pairwise", 1.0, {"verdict": "B"})
    vote = judge.preference(trace(epoch=1), won)
    assert vote is not None and (vote.task_id, vote.a, vote.b, vote.winner) == ("t", "i", "r", "b")
    assert vote.by == f"judge:{made.agent.model.name}" and judge.preference(trace(), won) is None
    assert judge.preference(trace(epoch=1), Score("pairwise", 0.0, {"verdict": "A"}, failure="no")) is None
    fields = judge._task(Task("t", "Q?"), trace(None), trace(None)).metadata["judge"]["fields"]
    assert fields == {"question": "Q?", "answer_a": "", "answer_b": ""}
    graded: Any = reference(judge="scripted:echo")
    known = graded._task(Task("t", "Q?", secret={"answer": 42}), trace("x"), None)
    assert (known.id, known.prompt) == ("t", "Q?") and known.metadata == {
        "judge": {"protocol": "reference", "fields": {"question": "Q?", "answer": "x", "reference": "42"}}
    }
    assert _protection(Task("t", "", metadata={"protected": "p", "x": 1})) == {"protected": "p"}
    assert _protection(Task("t", "", metadata={"x": 1})) == {} == rag_judgements._protection(Task("t", ""))


def test_judges_pass_every_setting_on_and_are_for_one_kind_of_protocol() -> None:
    given: Any = {"reasoning": "none", "how": "words", "max_chars": 250, "max_tokens": 5}
    wanted = {"reasoning": "none", "how": "words", "max_chars": 250, "reasoning_tokens": 5}
    for made, more in (
        (rubric(judge="scripted:echo", limit_tokens=7, **given), {}),
        (reference(judge="scripted:echo", limit_tokens=7, **given), {}),
        (
            pairwise(judge="scripted:echo", against="a", limit_tokens=7, orders="first", combine="consistent", **given),
            {"orders": "first", "combine": "consistent"},
        ),
    ):
        assert isinstance(made, JudgeScorer) and made.agent.limits.tokens == 7
        assert dict(made.agent.options) == {**wanted, **more} and made.agent.name == "judge scripted:echo"
    plain: Any = rubric(judge="scripted:echo")
    assert plain.extra == {"rubric": model_judge.RUBRIC} and plain.settings == {"low": 1, "high": 10}
    options = {"reasoning": "protocol", "how": "auto", "max_chars": 24_000, "reasoning_tokens": 512}
    assert dict(plain.agent.options) == options == dict(reference(judge="scripted:echo").agent.options)  # type: ignore[union-attr]
    assert plain.agent.limits.tokens is None
    default: Any = pairwise(judge="scripted:echo", against="b")
    assert dict(default.agent.options) == {
        "reasoning": "protocol", "how": "auto", "orders": "both", "combine": "mean", "max_chars": 24_000,
        "reasoning_tokens": 512,
    }  # fmt: skip
    assert default.described == (
        f"judge {default.agent.model.name} ({default.agent.model.fingerprint}), pairwise: reasoning=protocol, how=auto, "
        "orders=both, combine=mean, max_chars=24000, reasoning_tokens=512; against b"
    )
    assert (default.against, default.protocol, default.rivals, default.extra) == ("b", "pairwise", None, {})
    assert _of_kind("arena-hard", "pairwise") == "arena-hard" and _of_kind("hle", "single") == "hle"
    with pytest.raises(ConfigError, match=r"^the judge protocol hle is not for pairs: use rubric:protocol"):
        pairwise(judge="scripted:echo", against="a", protocol="hle")
    with pytest.raises(ConfigError, match=r"^the judge protocol arena-hard is not for one answer: use pairwise:"):
        reference(judge="scripted:echo", protocol="arena-hard")


def test_a_rubric_file_is_read_to_its_limit_of_characters(tmp_path: Any) -> None:
    file = tmp_path / "r.txt"
    for text, found in (("\n é \n", "é"), ("x" * model_judge.MAX_RUBRIC_CHARS, "x" * model_judge.MAX_RUBRIC_CHARS)):
        file.write_text(text, encoding="utf-8")
        assert model_judge._text(str(file)) == found
    assert model_judge._text("r.md is a file") == "r.md is a file"
    file.write_text("x" * 20_001)
    with pytest.raises(ConfigError, match=r"has 20001 characters: give 1 to 20000$"):
        model_judge._text(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"^the rubric '.*r.txt' cannot be read as text: "):
        model_judge._text(str(file))


READ = Call(
    ":0", "tool", None, 0.0, 0.0, "", detail={"name": RETRIEVE, "items": [{"document": "d", "text": "p", "score": 1.0}]}
)


class Vectors:
    """An embedder of known vectors; it fails for a text that it does not know."""

    name, fingerprint, dimensions = "vectors", "v", 2

    async def embed(self, texts: Any) -> list[list[float]]:
        known = {"Q?": [1.0, 0.0], "Q1?": [0.6, 0.8], "Q2?": [0.8, 0.6]}
        if any(each not in known for each in texts):
            raise ModelError("no vector")
        return [known[each] for each in texts]


def rag(name: str, *replies: str, embedder: Any = None, **more: Any) -> RagJudge:
    made: Any = {"faithfulness": faithfulness, "context_precision": context_precision}.get(name, faithfulness)
    agent: Any = made(judge="scripted:echo", how="words", **more).agent
    options = {"max_chars": 8000, "questions": 2} if name == "answer_relevance" else agent.options
    return RagJudge(name, model_judge.replace(agent, model=Scripted(list(replies)), options=options), embedder)


def judged(judge: RagJudge, answer: str = "A.") -> Score:
    return asyncio.run(judge(Task("t", "Q?", secret={"answer": "ref"}), trace(answer, calls=(READ,), epoch=3)))


def test_a_judgement_of_retrieval_is_a_share_with_its_verdicts_and_its_attempt() -> None:
    states = json.dumps({"statements": ["One.", " ", "Two.", "Three."]})
    found = judged(rag("faithfulness", states, "yes", "no", "yes"))
    inner = found.detail["trace"]
    assert found.value == pytest.approx(2 / 3) and found.failure is None and not found.unjudged
    told = without_trace(found)
    assert told.pop("tokens") == sum(
        each["usage"]["prompt_tokens"] + each["usage"]["completion_tokens"] for each in inner["calls"]
    )
    assert told == {
        "judge": "scripted", "protocol": "faithfulness", "calls": 4, "cost_usd": 0.0,
        "statements": ["One.", "Two.", "Three."], "verdicts": [True, False, True],
    }  # fmt: skip
    assert (inner["benchmark"], inner["epoch"], inner["task_id"]) == ("faithfulness of b", 3, "t")
    nothing = judged(rag("faithfulness", json.dumps({"statements": []})))
    assert nothing.failure == "the text states nothing that could be judged" and nothing.detail["verdicts"] == []
    wrong = judged(rag("faithfulness", "no list"))
    assert wrong.failure is not None and wrong.failure.startswith(
        "the judge gave no verdict: scripted answered 'no list', which does not fit the json_schema grammar"
    )
    assert wrong.detail["calls"] == 1 and wrong.unjudged and wrong.value == 0.0 and "trace" in wrong.detail
    stopped = judged(rag("faithfulness", states, *["yes"] * 5, limit_tokens=100))
    assert stopped.failure == "the judge gave no verdict: it was stopped by its limit of tokens"
    assert stopped.detail["calls"] == 2 and stopped.unjudged
    assert judged(rag("context_precision", "yes")).value == 1.0
    none = judged(rag("faithfulness", states, "no", "no", "no"))
    assert (none.value, none.failure, none.unjudged) == (0.0, None, False)


def test_relevance_is_the_mean_cosine_or_says_why_it_could_not_be_computed() -> None:
    def question(text: str, noncommittal: bool = False) -> str:
        return json.dumps({"noncommittal": noncommittal, "question": text})

    both = judged(rag("answer_relevance", question("Q1?"), question("Q2?", True), embedder=Vectors()))
    assert both.value == pytest.approx(0.7) and both.detail["questions"] == ["Q1?", "Q2?"]
    assert judged(rag("answer_relevance", *[question("Q1?", True)] * 2, embedder=Vectors())).value == 0.0
    lost = judged(rag("answer_relevance", question("Q1?"), question("else"), embedder=Vectors()))
    assert lost.failure == "the judgement could not be computed: no vector" and lost.detail["noncommittal"] == [
        False,
        False,
    ]
    assert lost.unjudged and lost.detail["calls"] >= 1
    with pytest.raises(
        ConfigError, match=r"^answer_relevance needs a judge: name a model, as in answer_relevance:judge="
    ):
        answer_relevance()


KIND = tuple(Principle(f"p.{at}", f"Rule {at}.", "?") for at in range(50))


def test_a_principle_is_drawn_by_the_task_and_both_orders_decide_the_label() -> None:
    from random import Random

    asked: list[str] = []

    def score(prompt: Any, text: str) -> float:
        said = prompt[-1].text if isinstance(prompt[-1], Message) else "".join(map(str, prompt))
        asked.append(said)
        kind_first = said.index("Kind.") < said.index("Curt.")
        return math.log((0.75 if kind_first else 0.5) if text.strip() == "A" else (0.25 if kind_first else 0.5))

    kind, curt = trace("Kind.", id="one", task_id="task 7"), trace("Curt.", id="two", task_id="task 7")
    principle = Random(derive_seed("principle label", "task 7")).choice(KIND)
    found = asyncio.run(label_pair(Scripted(score=score), "May I?", kind, curt, KIND))
    assert (found.task_id, found.a, found.b, found.winner, found.by) == (
        "task 7",
        "one",
        "two",
        "a",
        "constitution:scripted",
    )
    assert found.detail == {
        "principle": principle.id,
        "probability": pytest.approx(0.625),
        "orders": pytest.approx([0.75, 0.5]),
    }
    said = [
        TEXT.format(request="May I?", rule=principle.rule, first=a, second=b)
        for a, b in (("Kind.", "Curt."), ("Curt.", "Kind."))
    ]
    assert list(dict.fromkeys(asked)) == said
    other = asyncio.run(label_pair(Scripted(score=score), "May I?", curt, kind, KIND))
    assert (other.a, other.winner, other.detail["orders"]) == ("two", "b", pytest.approx([0.5, 0.25]))
    even = asyncio.run(label_pair(Scripted(score=lambda prompt, text: -1.0), "May I?", kind, curt, KIND))
    assert (even.winner, even.detail["probability"]) == ("tie", 0.5)
    with pytest.raises(ConfigError, match=f"^the label of task 7 by {principle.id} failed: gone$"):
        asyncio.run(label_pair(Scripted(error=ModelError("gone")), "May I?", kind, curt, KIND))


def test_attempts_pair_up_in_order_within_their_task_and_benchmark() -> None:
    def attempt(id: str, answer: str | None, task_id: str = "t", **more: Any) -> Trace:
        return trace(answer, id=id, task_id=task_id, **more)

    elsewhere = Trace("z", "other", "t", {}, 0, 0, "", 0.0, answer="w")
    traces = [
        attempt("a", "x"), attempt("u", "1", "s"), attempt("b", None), attempt("c", " x "), attempt("d", "y"), elsewhere,
        attempt("e", "y", error=Failure("E", "m")), attempt("f", "z"), attempt("v", "2", "s"), attempt("g", "last"),
    ]  # fmt: skip
    assert [(a.id, b.id) for a, b in answer_pairs(traces)] == [("d", "f"), ("u", "v")]


def test_what_a_judge_extracted_is_kept_beside_its_verdict() -> None:
    made: Any = reference(judge="scripted:echo", protocol="hle")
    said = json.dumps({"extracted_final_answer": "42 m", "reasoning": "same", "correct": "yes", "confidence": 80})
    judge = judged_by(made, Scripted([said] * 2))
    found = asyncio.run(judge(Task("t", "Q?", secret={"answer": "42"}), trace("about 42 m")))
    assert (found.name, found.value, found.failure) == ("hle", 1.0, None)
    assert (found.detail["answer"], found.detail["confidence"], found.detail["protocol"]) == ("42 m", 0.8, "hle")
