"""The server that the conformance suite asks for: its tools, resources and prompts on our own server, over HTTP.

python tests/mcp_peers/conformance_server.py [PORT]
"""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.subscriptions import PromptsListChanged, ToolsListChanged

from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import read_keys
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import serve
from firsthand.serve.mcp.exchange import Exchange
from firsthand.serve.mcp.mcp_server import McpServer, Offer, ServedPrompt, ServedResource
from firsthand.serve.mcp.mcp_transports import mcp_app
from firsthand.serve.mcp.served_tool import ServedTool, text_result
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()


def text(value: str) -> types.TextContent:
    return types.TextContent(type="text", text=value)


def picture() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, value: str, kind: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=kind, text=value)
    )


def result(*content: Any) -> types.CallToolResult:
    return types.CallToolResult(content=list(content))


def schema(*required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


STRING: Json = {"type": "string"}


def form(message: str, *required: str, **properties: Json) -> types.ElicitRequest:
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(message=message, requested_schema=schema(*required, **properties))
    )


def completion(prompt: str, tokens: int = 100) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(prompt))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=tokens))


NAME = form("What is your name?", "name", name=STRING)
TOOLS: list[ServedTool] = []


def tool(name: str, given: Json | None = None, **more: Any) -> Any:
    def add(run: Any) -> Any:
        TOOLS.append(ServedTool(name, f"Conformance: {name}.", given or schema(), run, **more))
        return run

    return add


@tool("test_simple_text")
async def simple_text(arguments: Json, exchange: Exchange) -> str:
    return "This is a simple text response for testing."


@tool("test_image_content")
async def image(arguments: Json, exchange: Exchange) -> Any:
    return result(picture())


@tool("test_audio_content")
async def audio(arguments: Json, exchange: Exchange) -> Any:
    return result(types.AudioContent(type="audio", data=WAV, mime_type="audio/wav"))


@tool("test_embedded_resource")
async def embedded_resource(arguments: Json, exchange: Exchange) -> Any:
    return result(embedded("test://embedded-resource", "This is an embedded resource content."))


@tool("test_multiple_content_types")
async def multiple(arguments: Json, exchange: Exchange) -> Any:
    resource = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return result(text("Multiple content types test:"), picture(), resource)


@tool("test_tool_with_logging")
async def logging_tool(arguments: Json, exchange: Exchange) -> str:
    await exchange.log("info", "Tool execution started")
    await asyncio.sleep(0.05)
    await exchange.log("info", "Tool processing data")
    await asyncio.sleep(0.05)
    await exchange.log("info", "Tool execution completed")
    return "Logged."


@tool("test_logging_tool")
async def quiet_logging(arguments: Json, exchange: Exchange) -> str:
    await exchange.log("info", "only for who asks")
    return "Logged."


@tool("test_error_handling")
async def error_handling(arguments: Json, exchange: Exchange) -> str:
    raise ToolError("This tool intentionally returns an error for testing")


@tool("test_tool_with_progress")
async def progress_tool(arguments: Json, exchange: Exchange) -> str:
    for done in (0, 50, 100):
        await exchange.progress(done, 100)
        await asyncio.sleep(0.05)
    return "Done."


@tool("test_sampling", schema("prompt", prompt=STRING))
async def sampling(arguments: Json, exchange: Exchange) -> str:
    reply = await exchange.ask("sample", completion(arguments["prompt"]))
    return f"LLM response: {reply.content.text}"


@tool("test_elicitation", schema("message", message=STRING))
async def elicitation(arguments: Json, exchange: Exchange) -> str:
    asked = form(arguments["message"], "username", "email", username=STRING, email=STRING)
    reply = await exchange.ask("user", asked)
    return f"User response: action={reply.action}, content={reply.content}"


@tool("test_streaming_elicitation")
async def streaming_elicitation(arguments: Json, exchange: Exchange) -> str:
    await exchange.progress(1, 2)
    return (await exchange.ask("user", NAME)).action


@tool("test_elicitation_sep1034_defaults")
async def defaults(arguments: Json, exchange: Exchange) -> str:
    asked = form(
        "Please review",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    reply = await exchange.ask("user", asked)
    return f"Elicitation completed: action={reply.action}, content={reply.content}"


@tool("test_elicitation_sep1330_enums")
async def enums(arguments: Json, exchange: Exchange) -> str:
    three = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{i}", "title": f"{word} Option"} for i, word in enumerate(("First", "Second", "Third"), 1)
    ]
    asked = form(
        "Please choose",
        untitledSingle={"type": "string", "enum": three},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        untitledMulti={"type": "array", "items": {"type": "string", "enum": three}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    reply = await exchange.ask("user", asked)
    return f"Elicitation completed: action={reply.action}, content={reply.content}"


@tool("test_missing_capability")
async def missing_capability(arguments: Json, exchange: Exchange) -> str:
    return (await exchange.ask("sample", completion("hello"))).content.text


@tool(
    "json_schema_2020_12_tool",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": STRING, "city": STRING},
            }
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def json_schema(arguments: Json, exchange: Exchange) -> str:
    return "ok"


@tool("test_header_tool", schema("region", region={"type": "string", "x-mcp-header": "Region"}))
async def header_tool(arguments: Json, exchange: Exchange) -> str:
    return f"region {arguments.get('region')}"


# -- several rounds --


@tool("test_input_required_result_elicitation")
async def round_elicitation(arguments: Json, exchange: Exchange) -> str:
    reply = await exchange.ask("user_name", NAME)
    return f"Hello, {(reply.content or {}).get('name', 'stranger')}!"


@tool("test_input_required_result_sampling")
async def round_sampling(arguments: Json, exchange: Exchange) -> str:
    return (await exchange.ask("capital_question", completion("What is the capital of France?"))).content.text


@tool("test_input_required_result_list_roots")
async def round_roots(arguments: Json, exchange: Exchange) -> str:
    reply = await exchange.ask("client_roots", types.ListRootsRequest())
    return ", ".join(str(root.uri) for root in reply.roots) or "no roots"


@tool("test_input_required_result_request_state")
@tool("test_input_required_result_tampered_state")
async def round_state(arguments: Json, exchange: Exchange) -> str:
    await exchange.ask("confirm", form("Please confirm", "ok", ok={"type": "boolean"}))
    return "state-ok"


@tool("test_input_required_result_multiple_inputs")
async def round_multiple(arguments: Json, exchange: Exchange) -> str:
    name, greeting, roots = await asyncio.gather(
        exchange.ask("user_name", NAME),
        exchange.ask("greeting", completion("Generate a greeting", 50)),
        exchange.ask("client_roots", types.ListRootsRequest()),
    )
    return f"{greeting.content.text} {name.content} {len(roots.roots)} roots"


@tool("test_input_required_result_multi_round")
async def round_multi(arguments: Json, exchange: Exchange) -> str:
    first = await exchange.ask("step1", form("Step 1: What is your name?", "name", name=STRING))
    second = await exchange.ask("step2", form("Step 2: What is your favorite color?", "color", color=STRING))
    return f"{first.content} {second.content}"


@tool("test_input_required_result_capabilities")
async def round_capabilities(arguments: Json, exchange: Exchange) -> str:
    asked = []
    if exchange.can("sampling"):
        asked.append(exchange.ask("sample", completion("hello")))
    if exchange.can("elicitation"):
        asked.append(exchange.ask("user_name", NAME))
    await asyncio.gather(*asked)
    return "done"


# -- tasks --


@tool("greet", schema("name", name=STRING))
async def greet(arguments: Json, exchange: Exchange) -> str:
    return f"Hello, {arguments['name']}!"


@tool("slow_compute", schema(seconds={"type": "number"}, label=STRING), as_task="may")
async def slow_compute(arguments: Json, exchange: Exchange) -> str:
    await asyncio.sleep(arguments.get("seconds", 1))
    return f"computed {arguments.get('label', '')}"


@tool("failing_job", as_task="must")
async def failing_job(arguments: Json, exchange: Exchange) -> str:
    await asyncio.sleep(1)
    raise ToolError("the job failed")


@tool("protocol_error_job", as_task="may")
async def protocol_error_job(arguments: Json, exchange: Exchange) -> str:
    await asyncio.sleep(0.2)
    raise MCPError(types.INTERNAL_ERROR, "the job broke the protocol")


@tool("confirm_delete", schema("filename", filename=STRING), as_task="may")
async def confirm_delete(arguments: Json, exchange: Exchange) -> str:
    reply = await exchange.ask(
        "confirm", form(f"Delete {arguments['filename']}?", "confirm", confirm={"type": "boolean"})
    )
    return f"deleted {arguments['filename']}" if reply.action == "accept" else "kept"


@tool("multi_input", as_task="may")
async def multi_input(arguments: Json, exchange: Exchange) -> str:
    one, two = await asyncio.gather(
        exchange.ask("first", form("First?", "value", value=STRING)),
        exchange.ask("second", form("Second?", "value", value=STRING)),
    )
    return f"{one.content} {two.content}"


async def ask_name(arguments: Json, exchange: Exchange) -> Json:
    reply = await exchange.ask("user_name", NAME)
    return arguments | {"name": (reply.content or {}).get("name", "")}


@tool("test_tool_with_task", as_task="must", prepare=ask_name)
async def tool_with_task(arguments: Json, exchange: Exchange) -> str:
    await asyncio.sleep(0.1)
    return f"worked for {arguments['name']}"


# -- resources and prompts --


async def static_text(uri: str, parts: dict[str, str]) -> Any:
    value = "This is the content of the static text resource."
    return [types.TextResourceContents(uri=uri, mime_type="text/plain", text=value)]


async def static_binary(uri: str, parts: dict[str, str]) -> Any:
    return [types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)]


async def template(uri: str, parts: dict[str, str]) -> Any:
    value = f'{{"id":"{parts["id"]}","templateTest":true,"data":"Data for ID: {parts["id"]}"}}'
    return [types.TextResourceContents(uri=uri, mime_type="application/json", text=value)]


RESOURCES = [
    ServedResource("test://static-text", "static-text", "A text.", static_text),
    ServedResource("test://static-binary", "static-binary", "A picture.", static_binary, "image/png"),
    ServedResource("test://watched-resource", "watched", "A text that may change.", static_text),
    ServedResource("test://template/{id}/data", "template", "Data by id.", template, "application/json"),
]


def messages(*content: Any) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=each) for each in content])


async def simple_prompt(arguments: dict[str, str], exchange: Exchange) -> Any:
    return messages(text("This is a simple prompt for testing."))


async def prompt_with_arguments(arguments: dict[str, str], exchange: Exchange) -> Any:
    return messages(text(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"))


async def prompt_with_resource(arguments: dict[str, str], exchange: Exchange) -> Any:
    resource = embedded(arguments["resourceUri"], "Embedded resource content for testing.")
    return messages(resource, text("Please process the embedded resource above."))


async def prompt_with_image(arguments: dict[str, str], exchange: Exchange) -> Any:
    return messages(picture(), text("Please analyze the image above."))


async def prompt_that_asks(arguments: dict[str, str], exchange: Exchange) -> Any:
    reply = await exchange.ask("user_context", form("What context should the prompt use?", "context", context=STRING))
    return messages(text(f"Use this context: {(reply.content or {}).get('context', '')}"))


def argument(name: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=f"The argument {name}.", required=True)


PROMPTS = [
    ServedPrompt("test_simple_prompt", "A prompt.", simple_prompt),
    ServedPrompt(
        "test_prompt_with_arguments", "Two arguments.", prompt_with_arguments, (argument("arg1"), argument("arg2")),
        complete=lambda name, value: [each for each in ("paris", "park", "party") if each.startswith(value)],
    ),
    ServedPrompt("test_prompt_with_embedded_resource", "A resource.", prompt_with_resource, (argument("resourceUri"),)),
    ServedPrompt("test_prompt_with_image", "A picture.", prompt_with_image),
    ServedPrompt("test_input_required_result_prompt", "A prompt that asks.", prompt_that_asks),
]  # fmt: skip


def main(port: int) -> None:
    made = McpServer(Offer(TOOLS, RESOURCES, PROMPTS, name="firsthand-conformance", version="1"))

    @tool("test_trigger_tool_change")
    async def tool_change(arguments: Json, exchange: Exchange) -> Any:
        await made.bus.publish(ToolsListChanged())
        return text_result("sent")

    @tool("test_trigger_prompt_change")
    async def prompt_change(arguments: Json, exchange: Exchange) -> Any:
        await made.bus.publish(PromptsListChanged())
        return text_result("sent")

    made.add(TOOLS[-2], TOOLS[-1])
    telemetry = ServerTelemetry(TelemetrySettings())
    admission = Admission(read_keys(None, {}, ClientLimits()), AdmissionSettings(), mean_request_s=lambda: 1.0)
    address = ListenAddress(port=port)
    app = ServerApp(ServedModels(None, name="mcp"), admission, telemetry, [mcp_app(made, address.host)])
    serve(app, address, on_open=lambda url: print(f"{url}/mcp", flush=True))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
