"""Serve an index: OpenAI's interface whose answers carry citations, POST /search and POST /answer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from firsthand.commands.rag_ask import NONE, AnswerFlags
from firsthand.errors import MissingExtra
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings

EXAMPLES = """
firsthand rag serve --index docs
firsthand rag serve --index docs --model none           # search alone
firsthand rag serve --index docs --host 0.0.0.0 --keys keys.toml
curl -s localhost:8000/search -H 'content-type: application/json' -d '{"query": "resume a run", "k": 3}'
"""


@dataclass(frozen=True)
class Config:
    """The index, how questions are answered, the address, and the limits."""

    index: Path = field(default=Path())
    """The folder that was indexed, or the index's file."""
    name: str = "rag"
    """The name that clients give for the model."""
    answer: AnswerFlags = field(default_factory=AnswerFlags)
    listen: ListenAddress = field(default_factory=ListenAddress)
    keys: Path | None = None
    """A TOML file of API keys and their limits (see docs/serve.md). $FIRSTHAND_API_KEY is a key too."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: ClientLimits = field(default_factory=ClientLimits)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)


def run(config: Config) -> int:
    """Serve until a signal comes."""
    try:
        from firsthand.serve.http.app import ServerApp
        from firsthand.serve.http.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "firsthand rag serve") from None
    from firsthand.commands.rag_ask import rag_model
    from firsthand.model import close
    from firsthand.retrieval.corpus import close_corpora, open_corpus
    from firsthand.serve.admission.admission_settings import check_binding
    from firsthand.serve.admission.api_keys import read_keys
    from firsthand.serve.admission.server_admission import Admission
    from firsthand.serve.models.served_models import ServedModels
    from firsthand.serve.openai.openai_app import openai_app
    from firsthand.serve.retrieval.search_app import search_app
    from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

    keys = read_keys(config.keys, os.environ, config.limits)
    check_binding(config.listen.host, bool(keys.clients))
    corpus = open_corpus(config.index)
    model = None if config.answer.model == NONE else rag_model(config.answer, config.index)
    models = ServedModels(model, None if model else corpus.embedder, name=config.name)
    telemetry = ServerTelemetry(config.telemetry)
    admission = Admission(keys, config.admission, mean_request_s=telemetry.metrics.mean_request_s)
    apps = [
        search_app(corpus, model, admission.charge_by_name),
        openai_app(models, admission, telemetry, OpenAISettings()),
    ]
    try:
        telemetry.open_spans()
        serve(ServerApp(models, admission, telemetry, apps), config.listen, on_open=lambda url: _announce(config, url))
    finally:
        telemetry.close()
        close(model)
        close_corpora()
    return 0


def _announce(config: Config, url: str) -> None:
    routes = f"{url}/search" if config.answer.model == NONE else f"{url}/v1, {url}/search and {url}/answer"
    print(f"{config.index} is served at {routes} (Ctrl-C ends it)", flush=True)
