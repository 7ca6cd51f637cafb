"""Published layouts of preference data as lines of `prompt`, `chosen` and `rejected`, or of `prompt` and `answers`.

| data | a line has | becomes |
|---|---|---|
| hh-rlhf (Bai et al., 2022, arXiv:2204.05862) | `chosen` and `rejected`, dialogues as text | messages |
| UltraFeedback, binarised | `prompt` as text, `chosen` and `rejected` as messages with the prompt | messages |
| UltraFeedback (Cui et al., 2023, arXiv:2310.01377) | `instruction`, `completions` with `overall_score` | ranked answers |

Every other line is left as it is, but for lists of messages that part before the last one: they answer different questions.
"""

from __future__ import annotations

import math
import re
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def as_comparison(body: Json, where: str) -> Json | None:
    """The line in our own layout; None for a line in which no answer is preferred. DataError for a broken dialogue."""
    chosen, rejected = body.get("chosen"), body.get("rejected")
    if "completions" in body and "instruction" in body:
        return _of_scores(body, where)
    if isinstance(chosen, str) and isinstance(rejected, str) and "prompt" not in body:
        return _of_dialogues(chosen, rejected, where)
    if not _answer_one_question([chosen, rejected]) or not _answer_one_question(body.get("answers")):
        return None
    if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(body.get("prompt"), list):
        return _of_whole_messages(body, chosen, rejected, where)
    return body


def preferred(body: Json, where: str) -> Json | None:
    """The prompt and the preferred answer of a comparison, as a line for fine-tuning; other lines as they are.

    Of a pair that is the chosen answer, of ranked or scored ones the best. None where no answer is preferred: `label` is
    false, all scores are equal, or a dialogue of hh-rlhf does not end with an answer. DataError for a prompt as text beside
    messages that do not include it, and for `answers` that are no ranking.
    """
    if "chosen" in body and "rejected" in body:
        return _with_answer(body, body["chosen"], where)
    if "messages" in body or "completion" in body:
        return None if body.get("label") is False else body
    if "text" in body:
        return body
    if "completions" in body and "instruction" in body:
        scored = _of_scores(body, where)
        return None if scored is None else _with_answer(scored, scored["answers"][0], where)
    if "answers" in body:
        return _with_answer(body, ranked_answers(body, where)[0], where)
    return body


def ranked_answers(body: Json, where: str) -> list[Any]:
    """The `answers` of a line, the best first. DataError if they are not two or more, or if two are equal."""
    answers = body["answers"]
    if not isinstance(answers, list) or len(answers) < 2:
        raise DataError(f"{where}: `answers` must be a list of two answers or more, the best first")
    if any(answer in answers[:rank] for rank, answer in enumerate(answers)):
        raise DataError(f"{where}: two of its `answers` are equal: neither is preferred, so leave one of them out")
    return answers


def _with_answer(body: Json, answer: Any, where: str) -> Json | None:
    """The line's prompt with one answer as its `completion`. None for a dialogue of hh-rlhf without an answer at its end."""
    if isinstance(answer, str) and "chosen" in body and "prompt" not in body:
        answer = dialogue(answer, f"{where}, chosen")
        if answer[-1]["role"] != "assistant" or not answer[-1]["content"]:
            return None
    if isinstance(answer, list) and not isinstance(body.get("prompt"), list):
        _expect_prompt_within(body, answer, where)
        return {"prompt": answer[:-1], "completion": answer[-1:], **_tools_of(body)}
    return {"prompt": body.get("prompt"), "completion": answer, **_tools_of(body)}


def _tools_of(body: Json) -> Json:
    return {key: value for key, value in body.items() if key == "tools"}


def dialogue(text: str, where: str) -> list[Json]:
    """The messages of a dialogue of hh-rlhf, turns of one side joined. DataError for a text without turns."""
    found = list(_TURN.finditer(text))
    if not found or text[: found[0].start()].strip():
        raise DataError(
            f"{where} is no dialogue: expected turns that begin with `Human:` and `Assistant:` after a blank line, or a "
            "field `prompt`"
        )
    ends = [each.start() for each in found[1:]] + [len(text)]
    messages: list[Json] = []
    for turn, end in zip(found, ends, strict=True):
        content = text[turn.end() : end].strip()
        if messages and messages[-1]["role"] == _ROLES[turn[1]]:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": _ROLES[turn[1]], "content": content})
    return messages


def _of_dialogues(chosen: str, rejected: str, where: str) -> Json | None:
    """The prompt is what both dialogues begin with; each must then have one answer, which is not empty."""
    sides = [dialogue(text, f"{where}, {name}") for name, text in (("chosen", chosen), ("rejected", rejected))]
    if any(side[-1]["role"] != "assistant" or not side[-1]["content"] for side in sides) or sides[0] == sides[1]:
        return None
    if sides[0][:-1] != sides[1][:-1]:
        return None  # the dialogues part before the last answer, so the two answer different questions
    return {"prompt": sides[0][:-1], "chosen": sides[0][-1:], "rejected": sides[1][-1:]}


def _answer_one_question(answers: Any) -> bool:
    """False for lists of messages of which some part before the last message, so that it follows another prompt."""
    if not isinstance(answers, list) or not all(isinstance(each, list) and each for each in answers):
        return True  # texts, or refused with a sentence
    return all(each[:-1] == answers[0][:-1] for each in answers)


def _expect_prompt_within(body: Json, messages: list[Any], where: str) -> None:
    """DataError for a prompt beside messages of which none, before the last, is the user's."""
    asked = (each for each in messages[:-1] if isinstance(each, dict) and each.get("role") == "user")
    if body.get("prompt") is not None and not any(asked):
        raise DataError(
            f"{where}: `prompt` is no list, and the messages of `chosen` do not include it: `prompt` and `chosen` must both "
            "be texts, or both lists of messages"
        )


def _of_whole_messages(body: Json, chosen: list[Any], rejected: list[Any], where: str) -> Json:
    """Messages that include the prompt: what both begin with, up to the last message, is the prompt."""
    if len(chosen) < 2 or not rejected:
        return body
    _expect_prompt_within(body, chosen, where)
    if chosen == rejected:
        return body  # refused with a sentence, as everywhere
    return {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:], **_tools_of(body)}


def _of_scores(body: Json, where: str) -> Json | None:
    """The completions ordered by their scores; of equal scores the first, of equal texts the best. None if one is left."""
    instruction, completions = body["instruction"], body["completions"]
    try:
        scored = [(_score(each["overall_score"]), _answer(each["response"])) for each in completions]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: a completion has no `response` or no number as `overall_score` ({type(error).__name__}: {error})"
        ) from None
    best: dict[float, str] = {}
    for score, response in scored:
        if response.strip():
            best.setdefault(score, response)
    ranked = list(dict.fromkeys(best[score] for score in sorted(best, reverse=True)))
    if len(ranked) < 2:
        return None
    prompt = [{"role": "user", "content": instruction}]
    return {"prompt": prompt, "answers": [[{"role": "assistant", "content": each}] for each in ranked]}


def _score(value: Any) -> float:
    score = float(value)
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    return score


def _answer(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the response is {type(value).__name__}, not a text")
    return value
