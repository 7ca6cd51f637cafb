"""Serve a model behind OpenAI's interface: chats, completions, embeddings, structured output, tools, metrics."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from firsthand import catalog
from firsthand.errors import ConfigError, MissingExtra
from firsthand.model import Embedder, Model

EXAMPLES = """
firsthand serve smollm2
firsthand serve path/to/model.gguf --port 9000 --log serve.jsonl
firsthand serve smollm2 --embedder minilm
firsthand serve smollm2 --adapter sql=adapters/sql --adapter poems=adapters/poems
firsthand serve smollm2 --host 0.0.0.0 --keys keys.toml --tls-cert cert.pem --tls-key key.pem
firsthand serve smollm2 --replicas 2 --threads 1 --adapter sql=adapters/sql
firsthand serve --config serve.toml
"""


@dataclass(frozen=True)
class Config:
    """What is served, where, to whom, and how much of it."""

    model: str | None = field(default=None, metadata={"positional": True})
    """The model: a name, a path, or another provider's, as `firsthand run --model` takes it."""
    embedder: str | None = None
    """The model of /v1/embeddings: minilm, a folder of the BERT family, or any decoder."""
    name: str = ""
    """What clients call the model; by default as you do, but a file or folder without the folders above it."""
    host: str = "127.0.0.1"
    """The address to listen on. One that others can reach needs API keys."""
    port: int = 8000
    """The port; 0 takes any free one."""
    keys: Path | None = None
    """A TOML file of API keys, their limits and what they may (see docs/serve.md). $FIRSTHAND_API_KEY is a key too."""
    tls_cert: Path | None = None
    """A TLS certificate chain in PEM."""
    tls_key: Path | None = None
    """Its private key in PEM."""
    allow_host: tuple[str, ...] = ()
    """Values of the Host header that are served; by default all with keys, loopback's own without."""
    max_requests: int = 2048
    """Requests under way, waiting ones included; more get 429 with Retry-After."""
    concurrency: int = 1024
    """Requests of one client under way at a time."""
    max_tokens: int = 4096
    """New tokens of one answer at most, and where a chat does not say how many."""
    max_answers: int = 16
    """Answers to one prompt at most."""
    body_bytes: int = 4 << 20
    """Bytes of a request's body at most."""
    request_s: float = 600.0
    """Seconds that an answer may take."""
    body_s: float = 30.0
    """Seconds that a client may take to send its headers, and its body."""
    stall_s: float = 60.0
    """Seconds that a client may leave its answer unread."""
    drain_s: float = 60.0
    """Seconds that answers under way may take after SIGTERM."""
    stored_responses: int = 1024
    """Responses that are kept for each key, in memory (`store`, `previous_response_id`); 0 keeps none."""
    private_caches: bool = False
    """Keep what is known of prompts apart for each key: no answer's speed tells a client what another one asked."""
    log: str = "-"
    """Where a line of JSON for each request goes: a file, - for standard error, none for nowhere."""
    log_texts: bool = False
    """Write prompts and answers into the log too."""
    otel: bool = False
    """Send a span of each request to an OpenTelemetry collector; $OTEL_EXPORTER_OTLP_ENDPOINT says where, and is enough."""
    device: str = "cpu"
    """Where a model of ours is computed: cpu, cuda, cuda:N, or auto, which is CUDA where there is one."""
    threads: int | None = None
    """Threads that the model computes on."""
    kv_memory_mb: int | None = None
    """Megabytes for keys and values; by default the smaller of 2,147 and a quarter of what is free."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = "auto"
    """How keys and values are kept: int8 takes half of what float16 does, which auto is where weights are rounded too."""
    max_sequences: int = 64
    """Answers computed at the same time."""
    speculation: bool = False
    """Guess from repetitions in prompt and answer; changes no answer."""
    adapter: tuple[str, ...] = field(default=(), metadata={"repeated": True})
    """A LoRA adapter beside the model, as NAME=FOLDER; clients name it as the model. May be given several times."""
    max_adapters: int = 8
    """Adapters in memory at the same time."""
    adapter_root: Path | None = None
    """Let clients whose key says load_adapters = true load and unload adapters, from within this folder only."""
    replicas: int | None = None
    """So many engines behind this one address, each a process of its own on a Ray cluster (see docs/cluster.md)."""
    address: str | None = None
    """The Ray cluster of the replicas: HOST:PORT, or auto for the one this machine is in. By default one is started here."""
    replica_cpus: float | None = None
    """CPUs that Ray keeps for each replica; by default they share those of their machines."""
    replica_gpus: float = 0.0
    """GPUs that Ray keeps for each replica."""

    def __post_init__(self) -> None:
        if self.model is None and self.embedder is None:
            raise ConfigError("serve what? For example: firsthand serve smollm2")
        if self.replicas is None:
            for name in ("address", "replica_cpus", "replica_gpus"):
                if getattr(self, name):
                    raise ConfigError(f"{name} is for replicas: say how many, as in --replicas 2")
        elif not 1 <= self.replicas <= 1000:
            raise ConfigError(f"replicas is {self.replicas}: give 1 to 1000")
        for name in ("replica_cpus", "replica_gpus"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1024:
                raise ConfigError(f"{name} is {value}: give a number from 0 to 1024")


def main(config: Config) -> int:
    """Serve until a signal comes."""
    try:
        from firsthand.serve.http.server import Address, serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "firsthand serve") from None
    from firsthand.cluster.replicas.fleet import Fleet
    from firsthand.serve.http.api_keys import check_loaders, read_keys
    from firsthand.serve.http.server_settings import Limits, Settings, check_binding
    from firsthand.serve.models.served_model import Door
    from firsthand.serve.telemetry.request_spans import open_spans

    limits = Limits(config.concurrency, config.max_tokens, config.max_answers, config.body_bytes, config.request_s)
    keys = read_keys(config.keys, os.environ, limits)
    check_binding(config.host, bool(keys.clients))
    check_loaders(keys, config.adapter_root)
    address = Address(config.host, config.port, config.tls_cert, config.tls_key)
    settings = Settings(
        limits=limits,
        max_requests=config.max_requests,
        body_s=config.body_s,
        stall_s=config.stall_s,
        drain_s=config.drain_s,
        hosts=config.allow_host,
        stored_responses=config.stored_responses,
        private_caches=config.private_caches,
        log_texts=config.log_texts,
        adapter_root=config.adapter_root,
    )
    model, embedder = open_replicas(config) if config.replicas else open_here(config)
    door = Door(
        model=model,
        settings=settings,
        keys=keys,
        embedder=embedder,
        name=config.name or public_name(config.model or config.embedder or ""),
        log_target=None if config.log == "none" else config.log,
    )
    if isinstance(fleet := getattr(model or embedder, "fleet", None), Fleet):
        fleet.tell = door.log.write
    try:
        door.spans = open_spans(door, asked=config.otel)
        serve(door, address, on_open=lambda url: say(config, url))
    finally:
        for part in (door.spans, door.model, door.embedder):
            if (close := getattr(part, "close", None)) is not None:
                close()
    return 0


def say(config: Config, url: str) -> None:
    """Tell whoever started the server where it is."""
    print(f"{config.model or config.embedder} is served at {url}/v1 (Ctrl-C ends it)", flush=True)


def open_here(config: Config) -> tuple[Model | None, Embedder | None]:
    """The model and the embedder; what runs here runs in this process."""
    model = None if config.model is None else open_model(config, config.model)
    return model, None if config.embedder is None else open_embedder(config.embedder)


def open_replicas(config: Config) -> tuple[Model | None, Embedder | None]:
    """The same, in replicas."""
    from firsthand.cluster.replicas.fleet import Fleet
    from firsthand.cluster.replicas.ray_replicas import open_ray
    from firsthand.cluster.replicas.replicated_model import Replicated, ReplicatedEmbedder

    assert config.replicas is not None
    own = {key: value for key, value in engine_settings(config).items() if value is not None}
    own["max_adapters"] = config.max_adapters
    settings = {
        "model": whole_path(config.model),
        "device": config.device,
        "embedder": whole_path(config.embedder),
        "engine": own,
    }
    starter = open_ray(
        settings, config.replicas, address=config.address, cpus=config.replica_cpus, gpus=config.replica_gpus
    )
    fleet = Fleet(starter, config.replicas)
    model = None if config.model is None else Replicated(fleet, config.model)
    put_adapters(model, config)
    return model, None if config.embedder is None else ReplicatedEmbedder(fleet, config.embedder)


def whole_path(name: str | None) -> str | None:
    """A model's name as processes in other folders understand it: paths are made absolute."""
    if name is None:
        return None
    base, plus, folder = name.partition("+lora:")
    whole = [str(Path(part).absolute()) if part and Path(part).exists() else part for part in (base, folder)]
    return plus.join(whole) if plus else whole[0]


def engine_settings(config: Config) -> dict[str, Any]:
    """What the flags say of the engine."""
    kv = config.kv_memory_mb
    return {
        "threads": config.threads,
        "kv_memory_bytes": None if kv is None else kv * 1_000_000,
        "kv_cache": config.kv_cache,
        "max_sequences": config.max_sequences,
        "max_batch_tokens": max(512, 2 * config.max_sequences),
        "max_waiting": config.max_requests * config.max_answers,
        "speculation": "prompt_lookup" if config.speculation else "off",
    }


def open_model(config: Config, text: str) -> Model:
    """The model; one that runs here with the engine's settings."""
    model: Any = catalog.model(text, device=config.device)
    if hasattr(model, "config"):
        settings = engine_settings(config)
        settings["max_batch_tokens"] = max(model.config.max_batch_tokens, settings["max_batch_tokens"])
        model.config = replace(model.config, **settings, max_adapters=config.max_adapters)
    put_adapters(model, config)
    opened: Model = model
    return opened


def put_adapters(model: Any, config: Config) -> None:
    """Name the adapters that are to be read with the model."""
    if not config.adapter and config.adapter_root is None:
        return
    if not hasattr(model, "put_adapter"):
        raise ConfigError(f"{config.model} does not run here, so no adapters can be beside it: leave out --adapter")
    for text in config.adapter:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            raise ConfigError(f"--adapter is {text!r}: write NAME=FOLDER")
        if name in (config.name, config.model):
            raise ConfigError(f"--adapter is {text!r}: {name} is the model's own name")
        model.put_adapter(name, whole_path(folder) if config.replicas else folder)


def open_embedder(text: str) -> Embedder:
    """The embedder."""
    from firsthand.providers import local_embedder

    embedder = local_embedder.open_embedder(text)
    embedder.name = public_name(text)
    return embedder


def public_name(text: str) -> str:
    """What clients call a model that is given by this text: no folder of this machine, and no address of another one."""
    provider, colon, rest = text.partition(":")
    if colon and provider in ("openai", "hf"):
        return rest.partition("@")[0] if provider == "openai" else text
    base, *adapters = re.split(r"(?=\+(?:lora|adapter):)", text)
    names = [part.rstrip("/\\").replace("\\", "/").rpartition("/")[2] for part in (base, *adapters)]
    kinds = [part.partition(":")[0] + ":" for part in adapters]
    return names[0] + "".join(kind + name.rpartition(":")[2] for kind, name in zip(kinds, names[1:], strict=True))
