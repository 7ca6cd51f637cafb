"""A program of the OpenAI SDK under OpenLLMetry's instrumentation."""

import sys

from openai import OpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

studio, models = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{studio}/v1/traces")))
OpenAIInstrumentor().instrument(tracer_provider=provider)
client = OpenAI(base_url=f"{models}/v1", api_key="none")
client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "Is it raining in Paris?"}])
provider.shutdown()
