"""An agent of the OpenAI Agents SDK with a tool, under OpenInference's instrumentation."""

import sys

from agents import Agent, Runner, function_tool, set_default_openai_api, set_default_openai_client
from openai import AsyncOpenAI
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

studio, models = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{studio}/v1/traces")))
OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
set_default_openai_client(AsyncOpenAI(base_url=f"{models}/v1", api_key="none"), use_for_tracing=False)
set_default_openai_api("chat_completions")


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


agent = Agent(name="forecaster", instructions="Answer in one word.", model="scripted", tools=[weather])
Runner.run_sync(agent, "Is it raining in Paris?")
provider.shutdown()
