"""Schemas of request bodies: types and bounds of each field, and no unknown fields.

A known field that is not supported is refused with its name, unless its value asks for nothing; labels (`LabelFields`) are
taken without effect. An unknown one is refused with the closest known name. `request_parsing.py` and the routes give the
fields their meaning. A list is read up to its first fault (`fail_fast`): 400,000 faults of one body would take seconds to be
listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from firsthand.errors import nearest
from firsthand.message import Json
from firsthand.sampling import MAX_ALLOWED, MAX_BAD_WORDS, MAX_WORD_CHARS
from firsthand.serve.http.refusals import Refusal, bad

W = TypeVar("W", bound="Wire")
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_INPUTS = 2048
MAX_SCHEMA_VALUES = 50_000
"""Most JSON values of all tools, schemas and settings of a request together: they are rendered, compared and compiled."""
MAX_INT = 2**31 - 1
Id = Annotated[int, Field(ge=0, le=MAX_INT)]
Ids = Annotated[list[Id], Field(fail_fast=True, max_length=1 << 20)]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
BadWord = Annotated[str, Field(min_length=1, max_length=MAX_WORD_CHARS)]
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataText = Annotated[str, Field(max_length=512)]
Texts = Annotated[list[str], Field(fail_fast=True, max_length=MAX_INPUTS)]


class Wire(BaseModel):
    """A JSON object of a request: no type is converted, and no unknown key is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False, protected_namespaces=())


class Returned(Wire):
    """An object of a conversation, which clients send back as their libraries keep it, with fields that we never wrote.

    A null in a field that is not known here asks for nothing, and is left out.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_unknown_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None or name in cls.model_fields}


class TextPart(Returned):
    """A part of a message's content."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: Annotated[list[Any], Field(fail_fast=True, max_length=0)] | None = None
    logprobs: Annotated[list[Any], Field(fail_fast=True, max_length=0)] | None = None


Content = str | Annotated[list[TextPart], Field(fail_fast=True, max_length=MAX_MESSAGES)]


class CalledFunction(Returned):
    """The function of a tool call."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str


class WireCall(Returned):
    """A tool call that an assistant made."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class WireMessage(Returned):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    """The tool whose result it is. Of other roles it is who speaks, which no template shows: it changes nothing."""
    tool_calls: Annotated[list[WireCall], Field(fail_fast=True, max_length=1024)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(fail_fast=True, max_length=0)] | None = None


class FunctionSpec(Wire):
    """The description of a tool."""

    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None
    """Calls always fit the schema if a grammar can express it; with true, another schema is refused."""


class WireTool(Wire):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionSpec


class FunctionName(Wire):
    """The name of a function."""

    name: str


class NamedTool(Wire):
    """The one tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Wire):
    """A schema with its name."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = "answer"
    description: str | None = None
    schema_: Json | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Wire):
    """The format of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Wire):
    """vLLM's field for grammars: exactly one of them."""

    json_: Json | bool | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Texts | None = None
    grammar: str | None = None
    """llguidance's Lark, or GBNF where it says `::=`."""
    json_object: bool | None = None


class StreamOptions(Wire):
    """Contents of a stream besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class LabelFields(Wire):
    """Fields with which clients label a request. They are checked and change nothing: the answer is the same without."""

    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None


class SamplingFields(LabelFields):
    """Fields of both chats and completions. The names are OpenAI's, then vLLM's."""

    model: Annotated[str, Field(max_length=512)] | None = None
    temperature: Annotated[float, Field(ge=0, lt=100)] | None = None
    """Defaults to 1, as in OpenAI's API."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True, max_length=64)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    presence_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=128)] | None = None
    """Users of one key share the engine fairly; it has no other effect."""
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop_token_ids: Annotated[list[Id], Field(fail_fast=True, max_length=64)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    allowed_token_ids: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=MAX_ALLOWED)] | None = None
    bad_words: Annotated[list[BadWord], Field(fail_fast=True, max_length=MAX_BAD_WORDS)] | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """Lower goes first."""
    cache_salt: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Requests share cached prefixes only with requests of the same salt."""
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    return_token_ids: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Json | bool | str | None = None
    guided_regex: str | None = None
    guided_choice: Texts | None = None
    guided_grammar: str | None = None


class ChatRequest(SamplingFields):
    """A chat to answer."""

    messages: Annotated[list[WireMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[WireTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=16)] | None = None
    """Variables of the model's chat template besides the conversation, such as `enable_thinking`."""
    reasoning_effort: Annotated[str, Field(max_length=64)] | None = None
    """Length of the reasoning: low, medium or high, for models whose chat template has this variable."""
    response_format: ResponseFormat | None = None


class CompletionRequest(SamplingFields):
    """A text to continue."""

    prompt: (
        str
        | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=1 << 20)]
        | Annotated[list[Ids], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
    )
    """A text, several, a list of token ids, or several."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None


class EmbeddingRequest(Wire):
    """Texts to turn into vectors."""

    model: Annotated[str, Field(max_length=512)] | None = None
    input: str | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, Field(max_length=128)] | None = None


class TokenizeRequest(Wire):
    """A text or a chat to turn into token ids."""

    model: Annotated[str, Field(max_length=512)] | None = None
    prompt: str | None = None
    messages: Annotated[list[WireMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[WireTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    return_token_strs: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=16)] | None = None


class DetokenizeRequest(Wire):
    """Token ids to turn into text."""

    model: Annotated[str, Field(max_length=512)] | None = None
    tokens: Ids


NO_EFFORT = "the model decides itself how long it thinks"
_NO: tuple[Any, ...] = (None, False, [], {})
_UNSUPPORTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "functions": ("use tools", _NO),
    "function_call": ("use tool_choice", (*_NO, "none")),
    "audio": ("this server answers in text", _NO),
    "modalities": ("this server answers in text", (None, ["text"])),
    "prediction": ("there are no predicted outputs", _NO),
    "web_search_options": ("the server does not search the web", _NO),
    "store": ("only responses are stored", _NO),
    "metadata": ("only responses are stored", _NO),
    "service_tier": ("there is one tier", (None, "auto", "default", "standard_only")),
    "reasoning_effort": (NO_EFFORT, (None,)),
    "verbosity": ("the model decides itself how long it speaks", (None,)),
    "chat_template": ("a template is a program, and a request may not bring one", (None,)),
    "documents": ("put documents into a message", _NO),
    "suffix": ("the model continues texts and does not fill gaps", (None, "")),
    "best_of": ("ask for n answers and choose", (None, 1)),
    "use_beam_search": ("there is no beam search", _NO),
    "prompt_embeds": ("a prompt is text or token ids", (None,)),
    "dimensions": ("the vectors keep the model's own length", (None,)),
    "lora_request": ("ask for the adapter by its name, as the model", (None,)),
    "safety_identifier": ("use user", (None,)),
    "prompt_cache_key": ("every prompt is looked up in the cache", (None,)),
    "spaces_between_special_tokens": ("tokens are joined as they are", (None, True)),
    "truncate_prompt_tokens": ("a prompt that is too long is refused", (None,)),
    "add_generation_prompt": ("the assistant speaks next", (None, True)),
    "continue_final_message": ("use /v1/completions to continue a text", (None, False)),
    "length_penalty": ("there is no beam search", (None, 1.0)),
    "n_discard": ("a context is never shifted", (None, 0)),
    "previous_response_id": ("send the whole conversation, or use /v1/responses", (None,)),
    "conversation": ("use previous_response_id, or send the whole conversation", (None,)),
    "background": ("answers come at once", _NO),
    "truncation": ("a prompt that is too long is refused", (None, "disabled")),
    "include": ("there is nothing more to include", _NO),
    "prompt_cache_retention": ("the server decides what it keeps", (None,)),
    "max_tool_calls": ("the model takes one turn", (None,)),
    "container": ("the server runs no tools", _NO),
    "mcp_servers": ("the server calls no tools: call them and send their results", _NO),
    "context_management": ("a conversation is answered as it is sent", _NO),
    "inference_geo": ("the model runs where the server does", (None,)),
    "speed": ("there is one speed", (None, "standard")),
}
_NOT_TEXT = ("image_url", "input_image", "image", "input_audio", "audio", "video_url", "file", "input_file", "document")
"""Parts of a message that other servers take."""


def read(kind: type[W], body: Json) -> W:
    """The request in a JSON object; a Refusal that names the first invalid field."""
    for field in [field for field in body if field in _UNSUPPORTED and field not in kind.model_fields]:
        reason, neutral = _UNSUPPORTED[field]
        if not any(type(body[field]) is type(value) and body[field] == value for value in neutral):
            raise bad(f"{field} is not supported: {reason}", field, "unsupported_parameter")
        body = {name: value for name, value in body.items() if name != field}
    _check_schemas(body)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _fault(kind, error) from None


_CONTENTS = ("messages", "system", "input", "prompt", "tokens", "allowed_token_ids")
"""Fields that may be long: they have bounds of their own."""


def _check_schemas(body: Json) -> None:
    """Refuse tools and schemas of more than MAX_SCHEMA_VALUES values before anything else walks them."""
    left = MAX_SCHEMA_VALUES
    for field, value in body.items():
        waiting = [] if field in _CONTENTS else [value]
        while waiting:
            each = waiting.pop()
            left -= 1
            if isinstance(each, dict | list):
                waiting += each.values() if isinstance(each, dict) else each
            if len(waiting) > left:
                most = f"{MAX_SCHEMA_VALUES:,}"
                raise bad(
                    f"{field} makes more than {most} JSON values of tools and schemas: send fewer or smaller ones",
                    field,
                )


def _fault(kind: type[Wire], error: ValidationError) -> Refusal:
    """The first fault, or the deepest one if alternatives were tried."""
    faults = error.errors(include_url=False, include_context=False)
    depth = lambda each: (len(each["loc"]), not each["type"].endswith("_type"))  # noqa: E731 - of a type others were tried
    fault: Mapping[str, Any] = max(faults, key=depth) if len(faults) < 64 else faults[0]
    unknown = next((each for each in faults if each["type"] == "extra_forbidden" and len(each["loc"]) == 1), None)
    fault = unknown or fault
    place = ".".join(str(step) for step in fault["loc"] if _is_place(step))[:200]
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])[:80]
        close = nearest(name, kind.model_fields) if len(fault["loc"]) == 1 else None
        hint = f": did you mean {close}?" if close else " here"
        return bad(f"the field {place!r} is not known{hint}", place, "unknown_parameter")
    if fault["type"] == "missing":
        return bad(f"the field {place!r} is missing", place, "missing_required_parameter")
    if fault["type"] == "too_short":
        return bad(f"{place} is an empty {_kind(fault['input'])}: give one or more", place, "invalid_value")
    if fault["type"] == "too_long" and (most := re.search(r"at most (\d+) item", fault["msg"])):
        return bad(
            f"{place} is a {_kind(fault['input'])} of more than {int(most[1]):,}: give fewer", place, "invalid_value"
        )
    if place.endswith(".type") and fault["input"] in _NOT_TEXT:
        return bad(
            f"{place} is {fault['input']!r}: this server takes text only, so leave it out", place, "invalid_value"
        )
    shown = repr(fault["input"])[:80] if not isinstance(fault["input"], dict | list) else f"a {_kind(fault['input'])}"
    return bad(f"{place} is {shown}: {fault['msg'][:200]}", place, "invalid_value")


def _is_place(step: str | int) -> bool:
    """True if a step of pydantic's location is a field or an index, not an alternative of a union."""
    return isinstance(step, int) or (re.fullmatch(r"[\w-]{1,80}", step) is not None and step not in _ALTERNATIVES)


_ALTERNATIVES = frozenset({"str", "int", "bool", "float", "TextPart", "NamedTool", "none", "dict", "list", "nullable"})


def _kind(value: Any) -> str:
    return {"dict": "object", "list": "list"}.get(type(value).__name__, type(value).__name__)
