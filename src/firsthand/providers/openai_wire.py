"""Reads replies and streams of the OpenAI protocol. Requests are in `openai_request.py`.

Plain data in and out, no network. A reply is untrusted: any content becomes a Completion or a ModelError. Not included:
images, audio, and `reasoning_content`, which some servers send beside the answer.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from dataclasses import astuple, replace
from itertools import accumulate
from typing import Any

from firsthand.errors import ModelError
from firsthand.message import Json, Message, Sampled, ToolCall, assistant
from firsthand.model import CallDelta, Completion, Likelihood, Usage
from firsthand.providers.finish_reasons import FailedAnswer, finish_reason
from firsthand.providers.reported_usage import count, json_object, number, read_usage
from firsthand.system.json_values import values_in_text
from firsthand.system.terminal import printable
from firsthand.tool_arguments import loads_arguments

MAX_CALLS, MAX_ARGUMENT_VALUES = 1_000, 200_000
"""Tool calls of an answer, and values in all their arguments."""
_MAX_DEPTH = 64
"""Deepest nesting of a tool call's arguments: deeper ones could not be serialised again."""


def sendable(body: Json) -> Json:
    """Returns a request body without half surrogate pairs, which UTF-8 does not allow."""
    text = json.dumps(body, ensure_ascii=False)
    cleaned: Json = body if text.isascii() else json.loads(clean(text))
    return cleaned


def clean(text: str) -> str:
    """Returns the text with each half surrogate pair replaced by U+FFFD, so that it can be stored and sent."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Unreadable(ModelError):
    """A reply that cannot be read, with words of it: `Endpoint.garbled` hides secrets in them before it cuts them."""

    def __init__(self, before: str, words: str, after: str, most: int = 300):
        self.before, self.words, self.after, self.most = before, words, after, most
        super().__init__(self.with_words(clip(words, most)))

    def with_words(self, words: str) -> str:
        """Returns the sentence with these words as the reply's."""
        return f"{self.before}{words or 'nothing'}{self.after}"


def parse(raw: bytes | str, address_hint: str = "most end in /v1") -> Json:
    """Returns the JSON object of a reply; ModelError if it is not one, with what a right address looks like."""
    try:
        body = json.loads(raw if isinstance(raw, str) else raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
        what = "an HTML page" if text.lstrip()[:5].lower() in ("<!doc", "<html") else text
        raise Unreadable(
            "it sent '", what, f"' where JSON was expected: check its address ({address_hint})", 200
        ) from None
    if not isinstance(body, dict):
        raise ModelError(f"it sent a JSON {type(body).__name__} where an object was expected: check its address")
    return body


def with_error(body: Json) -> Json:
    """Returns the object of a reply or an event; one that is an error, as of older vLLM, has itself as `error`."""
    is_error = "error" in (body.get("object"), body.get("type")) and "choices" not in body
    return body | {"error": body} if is_error and not body.get("error") else body


def clip(value: object, most: int = 300) -> str:
    """Returns a value from outside as one short line, for an error message; control characters are escapes in it."""
    words = printable(" ".join(clean(str(value)[: 4 * most]).split()))
    return words if len(words) <= most else words[:most] + "..."


def read_completions(body: Json, *, most: int | None = None) -> list[Completion]:
    """Returns the answers in a reply, in order, the first `most` of them; the prompt is counted in the first, other
    tokens are shared among all."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Unreadable("its reply holds no choices but ", ", ".join(body), ": check that it speaks OpenAI's API", 80)
    if all(isinstance(choice.get("index"), int) for choice in choices):
        choices = sorted(choices, key=lambda choice: choice["index"])
    choices = choices[:most]
    usage, n = read_usage(body.get("usage")), len(choices)
    shares = [usage.completion_tokens // n + (i < usage.completion_tokens % n) for i in range(n)]
    first = Usage(usage.prompt_tokens, usage.cached_tokens, shares[0], usage.cost_usd)
    usages = [first, *(Usage(completion_tokens=share) for share in shares[1:])]
    prompt_ids = _ids(body.get("prompt_token_ids") or choices[0].get("prompt_token_ids"))  # of chats, of plain prompts
    return [_completion(choice, usage, prompt_ids) for choice, usage in zip(choices, usages, strict=True)]


def read_model_names(body: Json) -> list[str]:
    """Returns the names in a reply of `/models`."""
    listed = body.get("data")
    names = [json_object(each).get("id") for each in listed] if isinstance(listed, list) else []
    return [name for name in names if isinstance(name, str)]


def read_likelihood(body: Json, prompt: str, continuation: str) -> Likelihood:
    """Returns the likelihood of the continuation, from a reply that echoes prompt and continuation with log-probs.

    FailedAnswer if its generation failed, ModelError if it holds no log-probs.
    """
    choices = body.get("choices")
    choice = json_object(choices[0]) if isinstance(choices, list) and choices else {}
    if choice.get("error"):
        raise FailedAnswer(choice.get("finish_reason"), choice["error"])
    given = json_object(choice.get("logprobs"))
    tokens, logprobs, offsets = given.get("tokens"), given.get("token_logprobs"), given.get("text_offset")
    if not isinstance(tokens, list) or not isinstance(logprobs, list) or len(tokens) != len(logprobs):
        finish_reason(choice.get("finish_reason"), has_answer=True)  # FailedAnswer if the endpoint failed
        raise ModelError("its reply holds no log-probs of the prompt")
    start, end = _span(tokens, offsets, read_usage(body.get("usage")).prompt_tokens, prompt, continuation)
    numbers = [each for each in map(number, logprobs[start:end]) if each is not None]
    if len(numbers) < end - start:
        raise ModelError("it gives no log-prob for some token of the continuation (the first of all has none)")
    tops = given.get("top_logprobs")
    best = [_best(top) for top in tops[start:end]] if isinstance(tops, list) else []
    is_greedy = len(best) == len(numbers) and all(own >= top for own, top in zip(numbers, best, strict=True))
    return Likelihood(continuation, math.fsum(numbers), len(numbers), is_greedy)


def brings_content(event: Json) -> bool:
    """True if an event of a stream has text, reasoning or a call; the role, an end and counts are none."""
    choices = event.get("choices")
    said = [json_object(choice) for choice in choices] if isinstance(choices, list) else []
    return any(says_something(choice.get(field)) for choice in said for field in ("delta", "message")) or any(
        choice.get("text") for choice in said
    )


class StreamedAnswer:
    """Assembles an answer from the events of a stream."""

    def __init__(self) -> None:
        self.finished = False
        self._text: list[str] = []
        self._calls: list[Json] = []
        self._open: dict[int, Json] = {}
        self._pieces: list[CallDelta] = []
        self._choice: Json = {"logprobs": {}, "token_ids": []}
        self._prompt_ids: Any = None
        self.usage = Usage()
        """The usage that the endpoint has reported for the answer so far."""
        self._num_chars = 0
        self._refuses = False
        self._repeats: bool | None = None
        """True if messages hold what came before again, False if they are pieces as deltas are, None if not known yet."""
        self._stated_calls: dict[str | int, Json] = {}
        """Calls that stand in messages, by id or place, each as it was stated last; they count if no delta brings one."""

    def add_usage(self, event: Json) -> None:
        """Take over the usage that an event states."""
        counted = read_usage(event.get("usage"))  # some servers count along, and state nothing or zeros at the end
        self.usage = Usage(*map(max, astuple(self.usage), astuple(counted)))

    def add(self, event: Json) -> str:
        """Returns the text that an event adds."""
        self.add_usage(event)
        self._prompt_ids = self._prompt_ids or event.get("prompt_token_ids")
        choices = event.get("choices")
        listed = map(json_object, choices if isinstance(choices, list) else [])
        choice = next((each for each in listed if (each.get("index") or 0) == 0), {})
        if choice.get("finish_reason") is not None:
            self._choice["finish_reason"] = choice["finish_reason"]
            self.finished = True
        if choice.get("error"):
            self._choice["error"] = choice["error"]
            self.finished = True
        for name, items in json_object(choice.get("logprobs")).items():
            if isinstance(items, list):
                self._choice["logprobs"].setdefault(name, []).extend(items)
        self._prompt_ids = self._prompt_ids or choice.get("prompt_token_ids")
        if isinstance(choice.get("token_ids"), list):
            self._choice["token_ids"] += choice["token_ids"]
        text = self._add_delta(json_object(choice.get("delta"))) or _text(choice, "text")
        if text:
            self._repeats = True
            self._keep_text(text)
        if message := json_object(choice.get("message")):
            self._refuses = self._refuses or _refuses(message)
            stated = self._new_in(_text(message) or _text(message, "refusal"))
            self._keep_text(stated)
            text += stated
            for place, call in enumerate(map(json_object, _wired_calls(message))):
                id = call.get("id")
                self._stated_calls[id if id and isinstance(id, str) else place] = call
        if self.finished and not self._calls:
            for place, call in enumerate(self._stated_calls.values()):
                self._add_call(call | {"index": place})
        return text

    def take_calls(self) -> list[CallDelta]:
        """Returns the pieces of tool calls since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def completion(self) -> Completion:
        """Returns the whole answer."""
        calls = [self._whole(call) for call in self._calls if call["name"] or call["arguments"]]
        message = {"refusal" if self._refuses else "content": "".join(self._text), "tool_calls": calls}
        choices = [self._choice | {"message": message}]
        return replace(
            read_completions({"choices": choices, "prompt_token_ids": self._prompt_ids})[0], usage=self.usage
        )

    def _add_delta(self, delta: Json) -> str:
        """Add the calls of a delta, and return its text, or that of a refusal."""
        for call in _wired_calls(delta):
            self._add_call(json_object(call))
        self._refuses = self._refuses or _refuses(delta)
        return _text(delta) or _text(delta, "refusal")

    def _keep_text(self, text: str) -> None:
        if text:
            self._text.append(text)
            self._num_chars += len(text)

    def _new_in(self, stated: str) -> str:
        """Returns what a message's text adds. Some servers send messages as pieces in place of deltas, others the whole
        answer again at the end, or all of it so far with each."""
        continues = len(stated) >= self._num_chars and stated.startswith("".join(self._text))
        if self._repeats is None and stated and self._text:
            self._repeats = continues
        if not self._repeats:
            return stated
        return stated[self._num_chars :] if continues else ""

    def _add_call(self, piece: Json) -> None:
        """Add to the call of the same index; a new id under an old index may be a new call, since some servers count
        wrongly. Servers that send no id, and no index or always the same one, send each call in one piece."""
        index, id, function = count(piece.get("index")), piece.get("id"), json_object(piece.get("function"))
        arguments = arguments_text(function.get("arguments"))
        call = self._open.get(index)
        is_new = call is None or bool(id and call["id"] and id != call["id"] and _may_begin(call, function))
        if call is not None and not id and (piece.get("index") is None or not call["id"]):
            is_new = _begins_another(call, function)
        if call is None or is_new:
            check_number_of_calls(len(self._calls))
            place = len(self._calls)
            call = self._open[index] = {"id": id, "name": "", "arguments": [], "is_whole": False, "place": place}
            self._calls.append(call)
        call["is_whole"] = call["is_whole"] or isinstance(function.get("arguments"), dict)
        was_named = bool(call["name"])
        call["id"] = call["id"] or id
        call["name"] = call["name"] or function.get("name")
        if arguments:
            call["arguments"].append(arguments)
        if isinstance(call["name"], str) and call["name"]:
            place = call["place"]
            if was_named:
                self._pieces.append(CallDelta(place, arguments=arguments))
            else:
                shown = str(call["id"] or f"call_{place}")
                self._pieces.append(CallDelta(place, shown, call["name"], "".join(call["arguments"])))

    def _whole(self, call: Json) -> Json:
        return {"id": call["id"], "function": {"name": call["name"], "arguments": "".join(call["arguments"])}}


def arguments_text(arguments: Any) -> str:
    """Returns the arguments in a piece of a call as text; some servers send an object, which is then whole."""
    if isinstance(arguments, str):
        return arguments
    if not arguments:
        return ""
    return f"<{type(arguments).__name__}>" if _too_deep(arguments) else json.dumps(arguments, ensure_ascii=False)


def _may_begin(call: Json, function: Json) -> bool:
    """True if a piece with another id than the call's is another call. vLLM gave each piece of a call a new id in 2024."""
    starts_anew = arguments_text(function.get("arguments")).startswith("{")
    return bool(function.get("name")) or (_is_ended(call) and starts_anew)


def _is_ended(call: Json) -> bool:
    """True if the arguments of a streamed call may be whole."""
    return bool(call["arguments"]) and call["arguments"][-1].endswith("}")


def _begins_another(call: Json, function: Json) -> bool:
    """True if a piece that no id and no index of its own tells apart is another call: it has another name, or follows
    whole arguments."""
    name, arguments = function.get("name"), function.get("arguments")
    if not name or not call["name"]:
        return False
    if isinstance(arguments, dict):  # an empty one adds no text
        follows = _is_ended(call) or call["is_whole"]
    else:
        follows = _is_ended(call) and arguments_text(arguments).startswith("{")
    return bool(name != call["name"] or follows)


def _completion(choice: Json, usage: Usage, prompt_ids: tuple[int, ...] | None) -> Completion:
    message = choice.get("message")
    if message is None and choice.get("error"):
        message = {}
    if message is None and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if not isinstance(message, dict):
        raise ModelError("its reply holds a choice without a message: check that it speaks OpenAI's API")
    reader = CallReader()
    calls = [reader.read(call) for call in _wired_calls(message)]
    logprobs = json_object(choice.get("logprobs"))
    said = assistant(_text(message) or _text(message, "refusal"), *calls)
    sampled = _sampled(choice.get("token_ids"), logprobs)
    has_answer, error = bool(said.text or calls), choice.get("error")
    reason = finish_reason(choice.get("finish_reason"), has_answer=has_answer, calls=bool(calls), error=error)
    return Completion(
        message=Message("assistant", said.parts, sampled),
        finish_reason="content_filter" if reason == "stop" and _refuses(message) else reason,
        usage=usage,
        top_logprobs=_top_logprobs(logprobs),
        prompt_ids=prompt_ids,
    )


def _wired_calls(message: Json) -> list[Any]:
    """Returns the tool calls of a message or delta, or the one of the older form."""
    calls, older = message.get("tool_calls"), message.get("function_call")
    if isinstance(calls, list) and calls:
        return calls
    return [{"function": older}] if isinstance(older, dict) and older else []


class CallReader:
    """Reads the tool calls of one answer: no more of them, nor of values in their arguments, than a model would write."""

    def __init__(self) -> None:
        self.number = 0
        self._values = 0
        self._ids: set[str] = set()

    def read(self, call: Any, position: int | None = None) -> ToolCall:
        """Returns the next call; `position` stands in its id if it came without one. ModelError for one too many.

        An id that an earlier call of the answer has gets a number, so that each result names its call.
        """
        check_number_of_calls(self.number)
        arguments = json_object(json_object(call).get("function")).get("arguments")
        if isinstance(arguments, str):  # JSON in a string, which was not counted with the reply
            self._values += values_in_text(arguments, MAX_ARGUMENT_VALUES - self._values, few=0)
        if self._values > MAX_ARGUMENT_VALUES:
            raise ModelError(
                f"the arguments of its tool calls hold more than {MAX_ARGUMENT_VALUES:,} values: ask for fewer at once"
            )
        read = read_call(call, self.number if position is None else position)
        self.number += 1
        id, count_of_id = read.id, 1
        while id in self._ids:
            id, count_of_id = f"{read.id}_{self.number}_{count_of_id}", count_of_id + 1
        self._ids.add(id)
        return read if id == read.id else replace(read, id=id)


def check_number_of_calls(before: int) -> None:
    """ModelError if an answer that has this number of tool calls opens another one too many."""
    if before >= MAX_CALLS:
        raise ModelError(f"it calls more than {MAX_CALLS:,} tools in one answer: ask for fewer at once")


def read_call(call: Any, position: int) -> ToolCall:
    """Returns the tool call in a reply; arguments that are no object are kept as the text they came as."""
    call = json_object(call)
    function = json_object(call.get("function"))
    id, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
    id = clean(id) if isinstance(id, str) and id else f"call_{position}"
    name = clean(name) if isinstance(name, str) else ""
    if arguments is None or arguments == "":  # many servers write a call without arguments so
        return ToolCall(id, name, {})
    try:
        parsed = loads_arguments(arguments) if isinstance(arguments, str) else arguments
        if isinstance(parsed, dict) and not _too_deep(parsed):
            # Serialised and parsed again to reject NaN, infinities and half surrogates, which could not be stored.
            return ToolCall(id, name, json.loads(clean(json.dumps(parsed, ensure_ascii=False, allow_nan=False))))
    except (ValueError, RecursionError):
        pass
    return ToolCall(id, name, {}, clean(arguments) if isinstance(arguments, str) else clip(type(arguments).__name__))


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True


def _sampled(token_ids: Any, logprobs: Json) -> Sampled | None:
    """The tokens as the endpoint chose them, if it gave every id and every log-prob."""
    content = logprobs.get("content")
    given = [json_object(token).get("logprob") for token in content] if isinstance(content, list) else None
    given = given if given is not None else logprobs.get("token_logprobs")
    ids = _ids(token_ids)
    if ids is None or not isinstance(given, list) or len(ids) != len(given):
        return None
    numbers = [each for each in map(number, given) if each is not None]
    return Sampled(ids, tuple(numbers)) if len(numbers) == len(given) else None


def _ids(given: Any) -> tuple[int, ...] | None:
    """Token ids, if the endpoint gave any and nothing else."""
    if not isinstance(given, list) or not given or not all(type(id) is int and 0 <= id < 2**31 for id in given):
        return None
    return tuple(given)


def _top_logprobs(logprobs: Json) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Returns the alternatives for each token, from the chat format (a list of objects) or the older one (an object)."""
    content = logprobs.get("content")
    if isinstance(content, list):
        per_token = [json_object(token).get("top_logprobs") for token in content]
        listed = [
            [(json_object(each).get("token"), json_object(each).get("logprob")) for each in token]
            if isinstance(token, list)
            else []
            for token in per_token
        ]
    else:
        older = logprobs.get("top_logprobs")
        listed = [list(json_object(token).items()) for token in older] if isinstance(older, list) else []
    numbered = [[(text, number(lp)) for text, lp in token if isinstance(text, str)] for token in listed]
    kept = tuple(tuple((clean(text), lp) for text, lp in token if lp is not None) for token in numbered)
    return kept if any(kept) else ()


def _span(tokens: list[Any], offsets: Any, reported: int, prompt: str, continuation: str) -> tuple[int, int]:
    """Returns which tokens hold the continuation. Tokens generated after it may follow.

    Tokens are matched with the text from its end, since tokens before the prompt (`<s>`) are in no text and shift some
    servers' offsets. Offsets decide where tokens are not whole characters.
    """
    text = prompt + continuation
    starts = [offset if type(offset) is int else -1 for offset in offsets] if isinstance(offsets, list) else []
    measured = len(starts) == len(tokens) and starts[:1] == [0] and starts == sorted(starts)
    inside = bisect_left(starts, len(text)) if measured else 0
    for end in dict.fromkeys((reported, inside, len(tokens) - 1, len(tokens))):
        if 0 < end <= len(tokens) and (start := _spelled(tokens[:end], text, len(prompt))) is not None:
            return start, end
    lengths = [len(token) if isinstance(token, str) else 0 for token in tokens]
    counted = starts == [0, *accumulate(lengths)][: len(starts)]  # computed from the tokens' lengths, which did not fit
    if not measured or counted or not inside:
        raise ModelError("its tokens do not spell the text that was scored")
    start = bisect_left(starts, len(prompt), hi=inside)
    crosses = start == inside or starts[start] > len(prompt)
    return start - crosses, inside


def _spelled(tokens: list[Any], text: str, boundary: int) -> int | None:
    """Returns the first token that reaches past the boundary, if the tokens from there on spell the end of the text."""
    at = len(text)
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index]
        if not isinstance(token, str) or not text.endswith(token, 0, at):
            return None
        at -= len(token)
        if at <= boundary:
            return index
    return None


def _best(top: Any) -> float:
    """Returns the highest log-prob among alternatives; infinite without any, so that nothing counts as greedy."""
    return max((each for each in map(number, json_object(top).values()) if each is not None), default=math.inf)


def _text(body: Json, field: str = "content") -> str:
    """Returns the text of a field: a string, or the text parts of a list."""
    value = body.get(field)
    if isinstance(value, list):
        texts = [json_object(part).get("text") for part in value]
        value = "".join(text for text in texts if isinstance(text, str))
    return clean(value) if isinstance(value, str) else ""


def _refuses(body: Json) -> bool:
    """True for a message or delta that refuses, as OpenAI's models do beside the schema of their answers."""
    return bool(_text(body, "refusal").strip())


def says_something(part: Any) -> bool:
    """True if a delta, message, block or part of a stream holds text, reasoning of whatever name, or a call."""
    return any(value for key, value in json_object(part).items() if key not in ("role", "type"))
