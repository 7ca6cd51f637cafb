"""Scores multiple choice by log-prob, as lm-evaluation-harness and OLMES define it.

The log-probs are read from the trace. A pattern that generates its answer instead of scoring the choices is scored by the
letter or text it gave; then all of these agree, except `acc_mutual_info` and `mc2`, which fail with a reason. The reference
is `task.secret["gold"]`, an index, and for `mc2` `task.secret["true"]`, the indices of all true choices.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence

from firsthand.errors import DataError
from firsthand.patterns.parts.named_choices import lettered
from firsthand.scorers.reference_answers import right_choice
from firsthand.scorers.whole_answer import whole_answer
from firsthand.task import Task
from firsthand.trace import Score, Trace


def acc(task: Task, trace: Trace) -> Score:
    """Score 1 if the right choice has the highest log-prob; the first choice wins a tie."""
    return _verdict("acc", task, trace, lambda text: 1)


def acc_norm(task: Task, trace: Trace) -> Score:
    """Score 1 if the right choice has the highest log-prob per character, without counting the leading space."""
    return _verdict("acc_norm", task, trace, lambda text: len(text.removeprefix(" ")))


def acc_bytes(task: Task, trace: Trace) -> Score:
    """Score 1 if the right choice has the highest log-prob per UTF-8 byte, without counting the leading space."""
    return _verdict("acc_bytes", task, trace, lambda text: len(text.removeprefix(" ").encode("utf-8", "surrogatepass")))


def acc_mutual_info(task: Task, trace: Trace) -> Score:
    """Score 1 if the right choice gains the most log-prob from the question: log P(choice | question) - log P(choice).

    Also known as pointwise mutual information, or normalised by the unconditional probability (Brown et al., 2020).
    """
    found, without = logprobs(task, trace), _baseline(task, trace)
    if found is None or without is None:
        return Score("acc_mutual_info", 0.0, failure="the choices were not scored without the question")
    gains = [with_it - alone for with_it, alone in zip(found, without, strict=True)]
    if -math.inf in without:
        return Score("acc_mutual_info", 0.0, failure="a choice has probability 0 without the question: it has no gain")
    return _choose("acc_mutual_info", task, gains)


def mc1(task: Task, trace: Trace) -> Score:
    """Score 1 if the best answer is more probable than every false one, ignoring other true ones (TruthfulQA).

    As probable as a false one is not enough. A written answer has to name the best one. The false ones are all but the true
    ones, or the indices `task.secret["rivals"]`.
    """
    found, gold, true = logprobs(task, trace), right_choice(task), task.secret.get("true", ())
    if found is None:
        return _verdict("mc1", task, trace, lambda text: 1)
    against = set(task.secret.get("rivals") or range(len(found))).difference(true, [gold])
    rivals = [value if index in against else -math.inf for index, value in enumerate(found)]
    if found[gold] > -math.inf and max(rivals) == found[gold]:
        return Score("mc1", 0.0, {"chosen": task.letters[rivals.index(found[gold])], "by": "logprob"})
    return _choose("mc1", task, [found[gold] if index == gold else value for index, value in enumerate(rivals)])


def mc2(task: Task, trace: Trace) -> Score:
    """Score the true choices' share of the total probability of all choices (TruthfulQA; Lin et al., 2022).

    Choices at the indices `task.secret["not_in_mc2"]` are none of it.
    """
    found = logprobs(task, trace)
    if found is None:
        return Score("mc2", 0.0, failure="the choices were not scored by log-prob")
    without = frozenset(task.secret.get("not_in_mc2") or ())
    found = [-math.inf if index in without else value for index, value in enumerate(found)]
    highest = max(found)
    if highest == -math.inf:
        return Score("mc2", 0.0, failure="every choice has probability 0, so that none has a share: see the log-probs")
    shares = [math.exp(logprob - highest) for logprob in found]
    try:
        true = true_choices(task.secret.get("true"), len(found))
    except ValueError as error:
        raise DataError(f"task {task.id}: secret['true']: {error}") from None
    return Score("mc2", sum(shares[index] for index in true) / sum(shares))


def true_choices(given: object, count: int) -> list[int]:
    """Return the indices of the true ones of `count` choices; ValueError unless they are whole numbers from 0, each once."""
    indices = list(given) if isinstance(given, list | tuple) else []
    if not all(type(index) is int and 0 <= index < count for index in indices) or not 0 < len(indices) == len(
        set(indices)
    ):
        raise ValueError(f"a list of indices from 0 to {count - 1}, each once, was expected, not {str(given)[:60]}")
    return indices


def logprobs(task: Task, trace: Trace) -> list[float] | None:
    """Return the log-probs of the task's choices in the trace, in order; None if one is missing."""
    known: dict[tuple[str | None, str], float] = {}
    for call in trace.calls:
        likelihoods: Sequence[Mapping[str, object]] = call.detail.get("likelihoods", []) if call.kind == "score" else []
        if [each.get("text") for each in likelihoods] == list(task.choices) and call.detail.get("prompt") is None:
            known |= {("", str(each["text"])): _number(each) for each in likelihoods}  # after a conversation
        prompt = call.detail.get("prompt")
        known |= {(prompt, str(each.get("text"))): _number(each) for each in likelihoods}
    for pairs in (task.scored, tuple(("", choice) for choice in task.choices)):
        values = [known.get(pair, math.nan) for pair in pairs]
        if values and not any(map(math.isnan, values)):
            return values
    return None


def chosen_letter(answer: str, task: Task) -> int | None:
    """Return the index of the choice that an answer names, by its letter or its whole text; None if it names none.

    Where texts are letters themselves (`A. b`, `B. a`), a capital is the letter of a choice, as patterns give it and as the
    question asks for; a bare small letter that is the text of a choice is that text.
    """
    plain = answer.strip().strip("().: ")
    if plain.upper() in task.letters:
        return lettered(answer.strip().strip(".: "), task)
    for fold in (str, str.casefold):  # of choices that differ by capitals, the one as written
        texts = [fold(choice.strip()) for choice in task.choices]
        if texts.count(fold(plain)) == 1:
            return texts.index(fold(plain))
    return None


def _verdict(name: str, task: Task, trace: Trace, length: Callable[[str], int]) -> Score:
    found = logprobs(task, trace)
    if found is not None:
        texts = [text for _, text in task.scored] or list(task.choices)
        return _choose(name, task, [value / max(1, length(text)) for value, text in zip(found, texts, strict=True)])
    chosen = chosen_letter(whole_answer(trace), task)
    letter = None if chosen is None else task.letters[chosen]
    return Score(name, float(chosen == right_choice(task)), {"chosen": letter, "by": "answer"})


def _choose(name: str, task: Task, ranked: Sequence[float]) -> Score:
    chosen, gold = max(range(len(ranked)), key=ranked.__getitem__), right_choice(task)
    if ranked[chosen] == -math.inf:  # no choice is possible, so that none is the most probable
        return Score(name, 0.0, {"chosen": None, "by": "logprob"})
    return Score(name, float(chosen == gold), {"chosen": task.letters[chosen], "by": "logprob"})


def _baseline(task: Task, trace: Trace) -> list[float] | None:
    """Return the log-probs of the choices without the question, or None."""
    texts = [text for _, text in task.scored]
    for call in trace.calls:
        asked = call.kind == "score" and call.detail.get("prompt") == task.baseline is not None
        likelihoods = call.detail.get("likelihoods", []) if asked else []
        if texts and [each.get("text") for each in likelihoods] == texts:
            values = [_number(each) for each in likelihoods]
            return None if any(map(math.isnan, values)) else values
    return None


def _number(likelihood: Mapping[str, object]) -> float:
    """Return a log-prob, which may be minus infinity; NaN for what is none, as infinity, True or 400 digits are."""
    value = likelihood.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return -math.inf if value == -math.inf else math.nan
    return float(value)
