"""Converts messages, sampling settings and model outputs between Inspect and firsthand.

Both directions of the bridge use it. Only text and tool calls are converted: a message with an image or audio is a
ModelError. Inspect is imported inside the functions, so the module imports without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from firsthand.errors import ModelError
from firsthand.grammar import json_schema
from firsthand.message import Json, Message, Part, Text, ToolCall, ToolResult
from firsthand.model import Completion, FinishReason, ToolSpec, Usage

MAX_TOKENS = 2048
"""Inspect's limit on generated tokens where a task sets none."""
_STOPPED: dict[FinishReason, str] = {
    "stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls", "content_filter": "content_filter",
}  # fmt: skip


def message_from(theirs: Any) -> Message:
    """Convert Inspect's ChatMessage to a Message; ModelError if it holds anything but text and tool calls."""
    text = _text(theirs.content)
    if theirs.role == "tool":
        failed = theirs.error is not None
        content = f"Error: {theirs.error.message}" if failed else text
        return Message("tool", (ToolResult(theirs.tool_call_id or "", theirs.function or "", content, failed),))
    calls = theirs.tool_calls or () if theirs.role == "assistant" else ()
    parts: list[Part] = [Text(text)] if text or not calls else []
    parts += [
        ToolCall(call.id, call.function, dict(call.arguments), None if call.parse_error is None else "")
        for call in calls
    ]
    return Message(theirs.role, tuple(parts))


def message_to(ours: Message, model: str | None = None) -> Any:
    """Convert a Message to Inspect's ChatMessage."""
    from inspect_ai import model as inspect_model
    from inspect_ai.tool import ToolCallError

    if ours.role == "system":
        return inspect_model.ChatMessageSystem(content=ours.text)
    if ours.role == "user":
        return inspect_model.ChatMessageUser(content=ours.text)
    if ours.role == "tool":
        result = next((part for part in ours.parts if isinstance(part, ToolResult)), ToolResult("", "", ours.text))
        error = ToolCallError("unknown", result.content.removeprefix("Error: ")) if result.is_error else None
        content = "" if result.is_error else result.content
        return inspect_model.ChatMessageTool(
            content=content, tool_call_id=result.call_id, function=result.name, error=error
        )
    calls = [_call_to(call) for call in ours.tool_calls] or None
    return inspect_model.ChatMessageAssistant(content=ours.text, tool_calls=calls, model=model, source="generate")


def sampling_from(config: Any) -> dict[str, Any]:
    """Return the sampling settings that Inspect's GenerateConfig states; `max_tokens` is always among them."""
    same = {
        "max_tokens": config.max_tokens or MAX_TOKENS,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "frequency_penalty": config.frequency_penalty,
        "presence_penalty": config.presence_penalty,
        "seed": config.seed,
    }
    settings = {name: value for name, value in same.items() if value is not None}
    if config.stop_seqs:
        settings["stop"] = tuple(config.stop_seqs)
    if config.logprobs or config.top_logprobs:
        settings["top_logprobs"] = max(1, config.top_logprobs or 0)
    if config.parallel_tool_calls is False:
        settings["parallel_tool_calls"] = False
    if config.response_schema is not None:
        settings["grammar"] = json_schema(_schema(config.response_schema.json_schema))
    return settings


def specs_from(tools: Sequence[Any], choice: Any) -> tuple[ToolSpec, ...]:
    """Return the specs of Inspect's tools that `choice` allows: all, the one it names, or none."""
    if choice == "none":
        return ()
    wanted = getattr(choice, "name", None)
    return tuple(
        ToolSpec(tool.name, tool.description, _schema(tool.parameters))
        for tool in tools
        if wanted is None or tool.name == wanted
    )


def calls_from(tools: Sequence[Any], choice: Any) -> str:
    """Return the `tool_choice` of a Sampling for Inspect's, where the tools are those that it allows."""
    if not tools or choice in ("auto", "none", None):
        return "auto"
    return getattr(choice, "name", "required")


def output_to(completions: Sequence[Completion], model: str) -> Any:
    """Convert completions of one prompt to Inspect's ModelOutput, usage and cost included."""
    from inspect_ai.model import ChatCompletionChoice, ModelOutput, ModelUsage

    usage = sum((each.usage for each in completions), Usage())
    choices = [
        ChatCompletionChoice(
            message=message_to(each.message, model), stop_reason=_STOPPED[each.finish_reason], logprobs=_logprobs(each)
        )
        for each in completions
    ]
    cost: dict[str, Any] = {"total_cost": usage.cost_usd} if usage.cost_usd else {}
    if usage.cache_write_tokens:
        cost["input_tokens_cache_write"] = usage.cache_write_tokens
    counted = ModelUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens,
        input_tokens_cache_read=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        **cost,
    )
    return ModelOutput(model=model, choices=choices, usage=counted)


def model_of(api: Any) -> Any:
    """Return an Inspect Model over the ModelAPI `api`, registered under the name that Inspect looks up."""
    from inspect_ai._util.registry import RegistryInfo, registry_tag
    from inspect_ai.model import GenerateConfig, Model

    registry_tag(lambda: api, api, RegistryInfo(type="modelapi", name="firsthand"))
    return Model(api, GenerateConfig())


def too_long(model: str, why: str) -> Any:
    """Return Inspect's output for a conversation that exceeds the context window, with the reason `why`."""
    from inspect_ai.model import ModelOutput

    return ModelOutput.from_content(model, why, stop_reason="model_length")


def _call_to(call: ToolCall) -> Any:
    from inspect_ai.tool import ToolCall as InspectCall

    broken = None if call.invalid is None else f"the arguments are not valid JSON: {call.invalid[:200]}"
    return InspectCall(id=call.id, function=call.name, arguments=dict(call.arguments), parse_error=broken)


def _logprobs(completion: Completion) -> Any:
    """Return the log-prob of each sampled token, or None if no alternatives were requested: only they hold token texts."""
    from inspect_ai.model import Logprob, Logprobs, TopLogprob

    born = completion.message.sampled
    if not completion.top_logprobs:
        return None
    content = []
    for index, top in enumerate(completion.top_logprobs):
        chosen = born.logprobs[index] if born is not None and index < len(born.logprobs) else None
        named = [(text, lp) for text, lp in top if chosen is None or math.isclose(lp, chosen, abs_tol=1e-4)]
        text, logprob = named[0] if named else ("", chosen)  # a sampled token need not be among the most probable ones
        alternatives = [TopLogprob(token=text, logprob=lp) for text, lp in top]
        content.append(Logprob(token=text, logprob=logprob, top_logprobs=alternatives))
    return Logprobs(content=content)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    other = [part.type for part in content if part.type not in ("text", "reasoning")]
    if other:
        raise ModelError(f"a message holds {', '.join(other)}: models here are given text only")
    return "".join(part.text for part in content if part.type == "text")


def _schema(schema: Any) -> Json:
    body: Json = schema.model_dump(exclude_none=True)
    return body
