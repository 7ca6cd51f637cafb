"""Messages between a server and its replicas, as JSON: jobs, and the pieces of their answers.

    to a replica      do       job, method, and its arguments
                      abort    job
    from a replica    delta    job, delta: a piece of an answer
                      end      job, value: what the method returned; None for a stream
                      failed   job, error, message: what it raised

A prompt is a text, token ids, or messages. Numbers survive JSON exactly, and so do half surrogate pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from firsthand.cluster.spread.run_worker import error_of as bare_error
from firsthand.errors import FirsthandError, TransientError
from firsthand.grammar import Grammar
from firsthand.message import Json, Message
from firsthand.model import CallDelta, Completion, Delta, Prompt, Sampling, ToolSpec

TokenPrompt = Prompt | Sequence[int]


def prompt_json(prompt: TokenPrompt) -> str | Json:
    """A prompt as JSON."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], Message):
        return {"messages": [message.to_json() for message in prompt if isinstance(message, Message)]}
    return {"ids": list(prompt)}


def prompt_of(body: str | Json) -> TokenPrompt:
    """The prompt that `prompt_json` wrote."""
    if isinstance(body, str):
        return body
    if "ids" in body:
        return tuple(body["ids"])
    return [Message.from_json(message) for message in body["messages"]]


def text_prompt_of(body: str | Json) -> Prompt:
    """The prompt that `prompt_json` wrote of a text or messages."""
    return body if isinstance(body, str) else [Message.from_json(message) for message in body["messages"]]


def sampling_of(body: Mapping[str, Any]) -> Sampling:
    """The Sampling that `Sampling.to_json` wrote."""
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in body.items()
    }
    settings["logit_bias"] = tuple((token, bias) for token, bias in body.get("logit_bias", ()))
    if body.get("grammar") is not None:
        settings["grammar"] = Grammar.from_json(body["grammar"])
    return Sampling(**settings)


def tool_of(body: Json) -> ToolSpec:
    """The ToolSpec that `ToolSpec.to_json` wrote."""
    return ToolSpec(**body["function"])


def delta_json(delta: Delta) -> Json:
    """A piece of an answer as JSON; empty fields are left out."""
    body: Json = {
        "text": delta.text,
        "completion": None if delta.completion is None else delta.completion.to_json(),
        "call": None if delta.call is None else asdict(delta.call),
        "index": delta.index,
        "token_ids": delta.token_ids,
        "logprobs": delta.logprobs,
        "top_logprobs": delta.top_logprobs,
        "top_ids": delta.top_ids,
        "waited_s": delta.waited_s,
        "prompt_tokens": delta.prompt_tokens,
        "num_held": delta.num_held,
        "is_revised": delta.is_revised,
    }
    return {name: value for name, value in body.items() if value}


def delta_of(body: Json) -> Delta:
    """The Delta that `delta_json` wrote."""
    return Delta(
        text=body.get("text", ""),
        completion=Completion.from_json(body["completion"]) if "completion" in body else None,
        call=CallDelta(**body["call"]) if "call" in body else None,
        index=body.get("index", 0),
        token_ids=tuple(body.get("token_ids", ())),
        logprobs=tuple(body.get("logprobs", ())),
        top_logprobs=tuple(tuple((text, lp) for text, lp in token) for token in body.get("top_logprobs", ())),
        top_ids=tuple(tuple(token) for token in body.get("top_ids", ())),
        waited_s=body.get("waited_s"),
        prompt_tokens=body.get("prompt_tokens"),
        num_held=body.get("num_held", 0),
        is_revised=body.get("is_revised", False),
    )


def failure_message(job: int, error: Exception) -> Json:
    """The message that a job raised."""
    message = {"kind": "failed", "job": job, "error": type(error).__name__, "message": str(error)}
    if isinstance(error, TransientError) and error.retry_after_s is not None:
        message["retry_after_s"] = error.retry_after_s
    return message


def error_of(message: Json) -> Exception:
    """The error of a failure message, as it would have been raised here."""
    error = bare_error(message["error"], message["message"])
    if isinstance(error, TransientError):
        error.retry_after_s = message.get("retry_after_s")
    if isinstance(error, FirsthandError):
        return error
    return RuntimeError(f"in a replica: {message['error']}: {message['message']}")
