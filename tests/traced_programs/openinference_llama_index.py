"""A chat engine of LlamaIndex under OpenInference's instrumentation."""

import sys

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.llms.openai_like import OpenAILike
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

studio, models = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{studio}/v1/traces")))
LlamaIndexInstrumentor().instrument(tracer_provider=provider)
model = OpenAILike(model="scripted", api_base=f"{models}/v1", api_key="none", is_chat_model=True)
SimpleChatEngine.from_defaults(llm=model).chat("Is it raining in Paris?")
provider.shutdown()
