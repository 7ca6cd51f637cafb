"""Log-probs of an endpoint that are none, or that make every choice impossible: no choice is right by them."""

import math

import pytest

from firsthand.scorers.choice import acc, acc_bytes, acc_mutual_info, acc_norm, logprobs, mc1, mc2
from firsthand.task import Task
from firsthand.trace import Call, Trace

TASK = Task("t", "q", choices=(" a", " b"), secret={"gold": 0, "true": [0]})


def scored(*values, answer=None):
    likelihoods = [{"text": text, "logprob": value} for text, value in zip(TASK.choices, values, strict=True)]
    call = Call(":0", "score", None, 0.0, 0.0, "", detail={"likelihoods": likelihoods})
    return Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=(call,), answer=answer)


def test_where_every_choice_is_impossible_none_is_right():
    trace = scored(-math.inf, -math.inf)
    for scorer in (acc, acc_norm, acc_bytes, mc1):
        assert (scorer(TASK, trace).value, scorer(TASK, trace).detail["chosen"]) == (0.0, None), scorer.__name__
    assert mc2(TASK, trace).value == 0.0 and "probability 0" in str(mc2(TASK, trace).failure)


def test_one_impossible_choice_leaves_the_other():
    for values, right in (
        ((-1.0, -math.inf), 1.0),
        ((-math.inf, -700.0), 0.0),
        ((0.0, -1e308), 1.0),
    ):
        trace = scored(*values)
        assert [scorer(TASK, trace).value for scorer in (acc, acc_norm, mc1)] == [right] * 3, values
    assert [scorer(TASK, scored(-1.0, -1.0)).value for scorer in (acc, acc_norm, mc1)] == [1.0, 1.0, 0.0]
    assert mc2(TASK, scored(-1.0, -math.inf)).value == 1.0 and mc2(TASK, scored(-2, -2)).value == 0.5


@pytest.mark.parametrize("odd", [math.inf, math.nan, True, False, 10**400, -(10**400), "1", None])
def test_what_is_no_log_prob_is_not_scored(odd):
    assert logprobs(TASK, scored(odd, -1.0)) is None and logprobs(TASK, scored(-1.0, odd)) is None
    assert mc2(TASK, scored(odd, -1.0)).failure and acc(TASK, scored(odd, -1.0)).value == 0.0
    assert acc(TASK, scored(odd, -1.0, answer="A")).detail["by"] == "answer"


def test_a_choice_that_is_impossible_without_the_question_has_no_gain():
    def task_and_trace(alone):
        task = Task("t", "q", choices=("a", "b"), secret={"gold": 0}, requests=(("q", " a"), ("q", " b")), baseline="n")
        calls = []
        for prompt, values in (("q", (-1.0, -2.0)), ("n", (alone, -3.0))):
            likelihoods = [{"text": text, "logprob": value} for text, value in zip((" a", " b"), values, strict=True)]
            detail = {"prompt": prompt, "likelihoods": likelihoods}
            calls.append(Call(f":{prompt}", "score", None, 0.0, 0.0, "", detail=detail))
        trace = Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, nodes=(), calls=tuple(calls), answer=None)
        return task, trace

    found = acc_mutual_info(*task_and_trace(-math.inf))
    assert found.value == 0.0 and "without the question" in str(found.failure)
    assert acc_mutual_info(*task_and_trace(-4.0)).value == 1.0
