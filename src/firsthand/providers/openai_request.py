"""Builds request bodies of the OpenAI protocol. Replies are in `openai_wire.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.message import Json, Message, Text, ToolCall, ToolResult
from firsthand.model import Prompt, Sampling, ToolSpec
from firsthand.providers.demanded_calls import demands_calls


def request(
    model: str, prompt: Prompt, sampling: Sampling, tools: Sequence[ToolSpec], n: int, *, token_ids: bool, limit: str
) -> Json:
    """Returns the body of a request for `n` answers; `limit` is the endpoint's field for the token limit."""
    chat = not isinstance(prompt, str)
    if tools and not chat:
        raise ConfigError("tools were given with a plain-text prompt: give a conversation, or leave the tools out")
    body: Json = {"model": model, **({"messages": messages(prompt)} if chat else {"prompt": prompt})}
    body |= {limit if chat else "max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    if tools:
        body["tools"] = [_tool(spec, is_strict=spec.name in sampling.strict_tools) for spec in tools]
    if demands_calls(sampling, tools):
        body["tool_choice"] = (
            "required"
            if sampling.tool_choice == "required"
            else {"type": "function", "function": {"name": sampling.tool_choice}}
        )
    if tools and not sampling.parallel_tool_calls:
        body["parallel_tool_calls"] = False
    if n > 1:
        body["n"] = n
    if sampling.temperature > 0:  # sent even at 1: some servers take their default from the model's files
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**31  # every endpoint accepts 31 bits
    neutral = {"presence_penalty": 0, "frequency_penalty": 0, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    body |= {name: getattr(sampling, name) for name, none in neutral.items() if getattr(sampling, name) != none}
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.stop_ids:
        body["stop_token_ids"] = list(sampling.stop_ids)
    if sampling.ignore_eos:
        body["ignore_eos"] = True
    body |= _vllm_fields(sampling)
    if sampling.top_logprobs or token_ids:
        body |= (
            {"logprobs": True, "top_logprobs": sampling.top_logprobs} if chat else {"logprobs": sampling.top_logprobs}
        )
    if token_ids:
        body["return_token_ids"] = True
    if sampling.grammar is not None:
        body |= structure(sampling.grammar, chat=chat)
    return body


def _tool(spec: ToolSpec, *, is_strict: bool) -> Json:
    body = spec.to_json()
    return {**body, "function": {**body["function"], "strict": True}} if is_strict else body


def reply_values(body: Json) -> int:
    """Returns how many JSON values of log-probs and token ids a request asks for, at the most.

    An alternative of a token has some 16: its text, its log-prob and its bytes. A text has no more tokens than bytes.
    """
    if "logprobs" not in body:
        return 0
    tokens = body.get("n", 1) * body.get("max_tokens", body.get("max_completion_tokens", 0))
    alternatives = 1 + max(body.get("top_logprobs", 0), int(body["logprobs"]))
    echoed = len(json.dumps(body, ensure_ascii=False)) if body.keys() & {"echo", "return_token_ids"} else 0
    return int(16 * (tokens * alternatives + echoed))


def _vllm_fields(sampling: Sampling) -> Json:
    """Returns the settings that vLLM has under the same names, if used."""
    body: Json = {"min_tokens": sampling.min_tokens} if sampling.min_tokens else {}
    if sampling.allowed_token_ids is not None:
        body["allowed_token_ids"] = list(sampling.allowed_token_ids)
    if sampling.bad_words:
        body["bad_words"] = list(sampling.bad_words)
    if not sampling.skip_special_tokens:
        body["skip_special_tokens"] = False
    if sampling.include_stop_str_in_output:
        body["include_stop_str_in_output"] = True
    return body


def structure(grammar: Grammar, *, chat: bool) -> Json:
    """Returns the field for a grammar: `response_format` for a schema in a chat, else vLLM's `structured_outputs`."""
    names = {"json_schema": "json", "lark": "grammar", "gbnf": "grammar"}
    is_data = grammar.kind in ("json_schema", "choice")
    what = grammar.parsed() if is_data else grammar.source
    if grammar.kind == "json_schema" and isinstance(what, bool):
        what = {} if what else {"not": {}}
    if grammar.kind == "json_schema" and chat:
        schema = {"name": "answer", "schema": what, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {names.get(grammar.kind, grammar.kind): what}}


def messages(conversation: Iterable[Message] | str) -> list[Json]:
    """Returns the `messages` field: a tool result becomes its own message."""
    assert not isinstance(conversation, str)
    return [wire for message in conversation for wire in _message(message)]


def _message(message: Message) -> list[Json]:
    results: list[Json] = [
        {"role": "tool", "tool_call_id": part.call_id, "content": part.content}
        for part in message.parts
        if isinstance(part, ToolResult)
    ]
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    if message.role == "assistant":
        body: Json = {"role": "assistant", "content": text or None if message.tool_calls else text}
        if message.tool_calls:
            body["tool_calls"] = [_call(call) for call in message.tool_calls]
        return [*results, body]
    role = "user" if message.role == "tool" else message.role  # text in a tool message answers no call
    return [*results, {"role": role, "content": text}] if text or not results else results


def _call(call: ToolCall) -> Json:
    # Broken arguments are sent as {}: servers parse this field and refuse the request. The tool's result quotes them.
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
