"""A chain of LangChain under OpenInference's instrumentation."""

import sys

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

studio, models = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{studio}/v1/traces")))
LangChainInstrumentor().instrument(tracer_provider=provider)
model = ChatOpenAI(model="scripted", base_url=f"{models}/v1", api_key="none")
chain = ChatPromptTemplate.from_messages([("system", "Answer in one word."), ("human", "{question}")]) | model
chain.invoke({"question": "Is it raining in Paris?"})
provider.shutdown()
