"""A program of the OpenAI SDK under OpenInference's instrumentation: a chat with a tool call, in a session of a user."""

import json
import sys

from openai import OpenAI
from openinference.instrumentation import using_session, using_user
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

studio, models = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{studio}/v1/traces")))
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = OpenAI(base_url=f"{models}/v1", api_key="sk-not-a-real-key-0123456789abcdef")
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
with using_session("chat-7"), using_user("ada"), trace.get_tracer("program").start_as_current_span("ask the weather"):
    messages = [{"role": "user", "content": "Is it raining in Paris?"}]
    first = client.chat.completions.create(model="scripted", messages=messages, tools=[tool]).choices[0].message
    for call in first.tool_calls or []:
        messages += [
            first.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"rain": True})},
        ]
    client.chat.completions.create(model="scripted", messages=messages)
provider.shutdown()
