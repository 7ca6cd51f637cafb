"""Serve a model behind OpenAI's interface: chats, completions, embeddings, structured output, tools, metrics."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, overload

from firsthand import catalog
from firsthand.cluster.replicas.replica_settings import ReplicaSettings
from firsthand.commands.agent_server import serve_agent
from firsthand.config import refuse_given
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, MissingExtra
from firsthand.model import BASE_MODEL, AdapterCapability, Embedder, Model, ModelFacts, close
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.system.terminal import complain

EXAMPLES = """
firsthand serve smollm2
firsthand serve path/to/model.gguf --port 9000 --log serve.jsonl
firsthand serve smollm2 --embedder minilm
firsthand serve smollm2 --adapter sql=adapters/sql --adapter poems=adapters/poems
firsthand serve smollm2 --host 0.0.0.0 --keys keys.toml --tls-cert cert.pem --tls-key key.pem
firsthand serve smollm2 --replicas 2 --threads 1 --adapter sql=adapters/sql
firsthand serve --config serve.toml
firsthand serve --agent agent.toml --sessions my-sessions       # an agent, by OpenAI's interface and A2A
"""


@dataclass(frozen=True)
class Config:
    """The models that are served, the address, and the limits."""

    model: str | None = field(default=None, metadata={"positional": True})
    """The model: a name, a path, or another provider's, as `firsthand run --model` takes it."""
    embedder: str | None = None
    """The model of /v1/embeddings: minilm, a folder of the BERT family, or any decoder."""
    name: str = ""
    """The name that clients give for the model; by default the one given here, without the folders of a path."""
    listen: ListenAddress = field(default_factory=ListenAddress)
    keys: Path | None = None
    """A TOML file of API keys and their limits (see docs/serve.md). $FIRSTHAND_API_KEY is a key too."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: ClientLimits = field(default_factory=ClientLimits)
    openai: OpenAISettings = field(default_factory=OpenAISettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    device: str = EngineConfig.device
    """Device for a model that runs here: cpu, cuda, cuda:N, or auto (CUDA if available)."""
    threads: int | None = EngineConfig.threads
    """Threads that compute the model."""
    kv_memory_mb: int | None = None
    """Megabytes of the KV cache; by default the smaller of 2,147 and a quarter of what is free."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = EngineConfig.kv_cache
    """The type of the KV cache: int8 takes half of what float16 does, which auto is where weights are rounded too."""
    max_sequences: int = EngineConfig.max_sequences
    """Maximum answers computed at the same time."""
    speculation: bool = False
    """Speculate on repetitions in prompt and answer; changes no answer."""
    adapter: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """A LoRA adapter beside the model, as NAME=FOLDER; clients name it as the model. May be given several times."""
    max_adapters: int = EngineConfig.max_adapters
    """Maximum adapters in memory at the same time."""
    replication: ReplicaSettings = field(default_factory=ReplicaSettings)
    agent: Path | None = None
    """Serve an agent instead: a TOML file with its model, pattern, tools and limits (see docs/served-agents.md)."""
    sessions: Path | None = None
    """With --agent: the folder of its sessions, which continue after a restart; by default a new run."""
    session_limits: SessionSettings = field(default_factory=SessionSettings)
    a2a: A2ASettings = field(default_factory=A2ASettings)

    def __post_init__(self) -> None:
        if self.sessions is not None and self.agent is None:
            raise ConfigError("sessions goes with agent: give --agent FILE.toml")
        if self.agent is not None and (self.model is not None or self.embedder is not None):
            raise ConfigError("agent and a model do not go together: the agent's file names its model")
        if self.model is not None and self.model.endswith(".toml"):
            raise ConfigError(f"model is {self.model!r}: an agent's file goes with --agent, and settings with --config")
        if self.model is None and self.embedder is None and self.agent is None:
            raise ConfigError("serve what? For example: firsthand serve smollm2")


OF_ENGINE = frozenset(
    {"threads", "kv_memory_mb", "kv_cache", "max_sequences", "speculation", "max_adapters", "private_caches"}
)
"""Flags that only a model that runs here can follow."""


def refuse_unused(config: Config) -> None:
    """ConfigError for flags of an agent without one, and of a model where none is served."""
    of_model = OF_ENGINE | {"adapter", "adapter_root"}
    if config.agent is None:
        refuse_given(config, of_parts(SessionSettings, A2ASettings), "it goes with --agent")
        if config.model is None:
            refuse_given(config, of_model, "it is for a model, and an embedder alone is served")
    else:
        of_model |= {"name", "device"} | of_parts(ReplicaSettings)
        refuse_given(config, of_model, "it is for a model: an agent's file says how its own is loaded")


def of_parts(*parts: type[Any]) -> set[str]:
    """The names of the settings of these dataclasses."""
    return {each.name for part in parts for each in fields(part)}


def main(config: Config) -> int:
    """Serve until a signal comes."""
    refuse_unused(config)
    if config.agent is not None:
        return serve_agent(
            config.agent,
            folder=config.sessions,
            listen=config.listen,
            key_file=config.keys,
            limits=config.limits,
            admitted=config.admission,
            openai=config.openai,
            recorded=config.telemetry,
            session_limits=config.session_limits,
            a2a=config.a2a,
        )
    try:
        from firsthand.serve.http.app import ServerApp
        from firsthand.serve.http.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "firsthand serve") from None
    from firsthand.serve.admission.admission_settings import check_binding
    from firsthand.serve.admission.api_keys import check_loaders, read_keys
    from firsthand.serve.admission.server_admission import Admission
    from firsthand.serve.models.replica_status import fleet_of
    from firsthand.serve.models.served_models import ServedModels
    from firsthand.serve.openai.openai_app import openai_app
    from firsthand.serve.telemetry.server_telemetry import ServerTelemetry

    keys = read_keys(config.keys, os.environ, config.limits)
    check_binding(config.listen.host, bool(keys.clients))
    check_loaders(keys, config.openai.adapter_root)
    model, embedder = open_replicas(config) if config.replication.replicas else open_here(config)
    models = ServedModels(model, embedder, name=config.name or public_name(config.model or config.embedder or ""))
    models.on_facts = lambda facts: tell_base_model(models.name, facts)
    telemetry = ServerTelemetry(config.telemetry)
    admission = Admission(keys, config.admission, mean_request_s=telemetry.metrics.mean_request_s)
    app = ServerApp(models, admission, telemetry, [openai_app(models, admission, telemetry, config.openai)])
    if (fleet := fleet_of(model or embedder)) is not None:
        fleet.on_event = telemetry.log.write
    try:
        telemetry.open_spans()
        serve(app, config.listen, on_open=lambda url: announce(config, url))
    finally:
        telemetry.close()
        close(model, embedder)
    return 0


def announce(config: Config, url: str) -> None:
    """Print the URL of a server that is ready."""
    print(f"{config.model or config.embedder} is served at {url}/v1 (Ctrl-C ends it)", flush=True)


def tell_base_model(name: str, facts: ModelFacts) -> None:
    """Say on standard error that a model has no chat template."""
    if not facts.has_template:
        complain(BASE_MODEL.format(name=name))


def open_here(config: Config) -> tuple[Model | None, Embedder | None]:
    """The model and the embedder; those that run here run in this process."""
    model = None if config.model is None else open_model(config, config.model)
    return model, None if config.embedder is None else open_embedder(config.embedder)


def open_replicas(config: Config) -> tuple[Model | None, Embedder | None]:
    """The model and the embedder, in replicas."""
    from firsthand.cluster.replicas.fleet import Fleet
    from firsthand.cluster.replicas.ray_replicas import open_ray
    from firsthand.cluster.replicas.replicated_model import ReplicatedEmbedder, ReplicatedModel

    ray = config.replication
    assert ray.replicas is not None
    engine = {key: value for key, value in engine_settings(config).items() if value is not None}
    settings = {
        "model": absolute_path(config.model),
        "device": config.device,
        "embedder": absolute_path(config.embedder),
        "engine": engine | {"max_adapters": config.max_adapters},
    }
    starter = open_ray(
        settings,
        ray.replicas,
        address=ray.address,
        cpus=ray.replica_cpus,
        gpus=ray.replica_gpus,
    )
    fleet = Fleet(starter, ray.replicas)
    model = None if config.model is None else ReplicatedModel(fleet, config.model)
    put_adapters(model, config)
    return model, None if config.embedder is None else ReplicatedEmbedder(fleet, config.embedder)


@overload
def absolute_path(name: str) -> str: ...


@overload
def absolute_path(name: None) -> None: ...


def absolute_path(name: str | None) -> str | None:
    """A model's name with its paths made absolute, for processes in other folders."""
    if name is None:
        return None
    pieces = re.split(r"(\+(?:lora|adapter|steer|monitor):)", name)
    return "".join(piece if number % 2 else _absolute(piece) for number, piece in enumerate(pieces))


def _absolute(part: str) -> str:
    """A path that is there made absolute, FILE@STRENGTH too; any other text unchanged."""
    file, at, strength = part.rpartition("@")
    if not Path(part).exists() and file and Path(file).exists():
        return f"{Path(file).absolute()}{at}{strength}"
    return str(Path(part).absolute()) if part and Path(part).exists() else part


def engine_settings(config: Config) -> dict[str, Any]:
    """Fields of an EngineConfig that the flags set."""
    kv = config.kv_memory_mb
    return {
        "threads": config.threads,
        "kv_memory_bytes": None if kv is None else kv * 1_000_000,
        "kv_cache": config.kv_cache,
        "max_sequences": config.max_sequences,
        "max_batch_tokens": max(EngineConfig.max_batch_tokens, 2 * config.max_sequences),
        "max_waiting": config.admission.max_requests * config.limits.max_answers,
        "speculation": "prompt_lookup" if config.speculation else "off",
    }


def open_model(config: Config, text: str) -> Model:
    """The model; if it runs here, with the engine's settings."""
    from firsthand.cluster.replicas.replica_worker import EngineModel

    model = catalog.model(text, device=config.device)
    if isinstance(model, EngineModel):
        settings = engine_settings(config)
        settings["max_batch_tokens"] = max(model.config.max_batch_tokens, settings["max_batch_tokens"])
        model.config = replace(model.config, **settings, max_adapters=config.max_adapters)
    else:
        refuse_given(config, OF_ENGINE, f"it is for a model that runs here, and {text} does not")
    put_adapters(model, config)
    return model


def put_adapters(model: Model | None, config: Config) -> None:
    """Let the adapters of the flags be read together with the model."""
    if not config.adapter and config.openai.adapter_root is None:
        return
    if model is None or not isinstance(model, AdapterCapability):
        raise ConfigError(f"{config.model} does not run here, so no adapters can be beside it: leave out --adapter")
    for text in config.adapter:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise ConfigError(f"--adapter is {text!r}: write NAME=FOLDER")
        if name in (config.name, config.model):
            raise ConfigError(f"--adapter is {text!r}: {name} is the model's own name")
        model.put_adapter(name, absolute_path(folder) if config.replication.replicas else folder)


def open_embedder(text: str) -> Embedder:
    """The embedder, under its public name."""
    from firsthand.providers import local_embedder

    embedder = local_embedder.open_embedder(text)
    embedder.name = public_name(text)
    return embedder


def public_name(text: str) -> str:
    """The name that clients give for a model: without the folders of this machine, and without another one's address."""
    provider, colon, rest = text.partition(":")
    if colon and provider in ("openai", "anthropic", "google", "ollama"):
        return rest.partition("@")[0]
    if colon and provider == "hf":
        return text
    base, *adapters = re.split(r"(?=\+(?:lora|adapter|steer|monitor):)", text)
    names = [part.rstrip("/\\").replace("\\", "/").rpartition("/")[2] for part in (base, *adapters)]
    kinds = [part.partition(":")[0] + ":" for part in adapters]
    return names[0] + "".join(kind + name.rpartition(":")[2] for kind, name in zip(kinds, names[1:], strict=True))
