"""An evaluation of Inspect at an OpenAI-compatible endpoint, under OpenInference's instrumentation of the OpenAI SDK."""

import sys
import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
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
model = get_model("openai-api/local/scripted", base_url=f"{models}/v1", api_key="sk-not-a-real-key-0123456789abcdef")
task = Task([Sample("Is it raining in Paris?", target="yes")], scorer=includes())
with tempfile.TemporaryDirectory() as logs, trace.get_tracer("program").start_as_current_span("weather eval"):
    (log,) = eval(task, model=model, log_dir=logs, display="none")
assert log.status == "success", log.error
provider.shutdown()
