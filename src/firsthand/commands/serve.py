"""Serve a model behind OpenAI's interface: chats, completions, embeddings, structured output, tools, metrics."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.errors import ConfigError, MissingExtra
from firsthand.model import Embedder, Model

EXAMPLES = """
firsthand serve smollm2
firsthand serve path/to/model.gguf --port 9000 --log serve.jsonl
firsthand serve smollm2 --embedder minilm
firsthand serve smollm2 --host 0.0.0.0 --keys keys.toml --tls-cert cert.pem --tls-key key.pem
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
    """What clients call the model; by default as you do."""
    host: str = "127.0.0.1"
    """The address to listen on. One that others can reach needs API keys."""
    port: int = 8000
    """The port; 0 takes any free one."""
    keys: Path | None = None
    """A TOML file of API keys with their limits (see docs/serve.md). $FIRSTHAND_API_KEY is a key too."""
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
    log: str = "-"
    """Where a line of JSON for each request goes: a file, - for standard error, none for nowhere."""
    log_texts: bool = False
    """Write prompts and answers into the log too."""
    device: str = "cpu"
    """Where a model of ours is computed: cpu, cuda, cuda:N, or auto, which is CUDA where there is one."""
    threads: int | None = None
    """Threads that the model computes on."""
    kv_memory_mb: int | None = None
    """Megabytes for keys and values; by default the smaller of 2,147 and a quarter of what is free."""
    max_sequences: int = 64
    """Answers computed at the same time."""
    speculation: bool = False
    """Guess from repetitions in prompt and answer; changes no answer."""

    def __post_init__(self) -> None:
        if self.model is None and self.embedder is None:
            raise ConfigError("serve what? For example: firsthand serve smollm2")


def main(config: Config) -> int:
    """Serve until a signal comes."""
    try:
        from firsthand.serve.server import Address, serve
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve", "firsthand serve") from None
    from firsthand.serve.door import Door
    from firsthand.serve.keys import read_keys
    from firsthand.serve.settings import Limits, Settings, check_binding

    limits = Limits(config.concurrency, config.max_tokens, config.max_answers, config.body_bytes, config.request_s)
    keys = read_keys(config.keys, os.environ, limits)
    check_binding(config.host, bool(keys.clients))
    address = Address(config.host, config.port, config.tls_cert, config.tls_key)
    settings = Settings(
        limits=limits,
        max_requests=config.max_requests,
        body_s=config.body_s,
        stall_s=config.stall_s,
        drain_s=config.drain_s,
        hosts=config.allow_host,
        log_texts=config.log_texts,
    )
    door = Door(
        model=None if config.model is None else open_model(config, config.model),
        settings=settings,
        keys=keys,
        embedder=None if config.embedder is None else open_embedder(config.embedder),
        name=config.name or config.model or config.embedder or "",
        log_target=None if config.log == "none" else config.log,
    )
    try:
        serve(door, address, on_open=lambda url: say(config, url))
    finally:
        for part in (door.model, door.embedder):
            if (close := getattr(part, "close", None)) is not None:
                close()
    return 0


def say(config: Config, url: str) -> None:
    """Tell whoever started the server where it is."""
    print(f"{config.model or config.embedder} is served at {url}/v1 (Ctrl-C ends it)", flush=True)


def open_model(config: Config, text: str) -> Model:
    """The model; one that runs here with the engine's settings."""
    model: Any = catalog.model(text, device=config.device)
    if hasattr(model, "config"):
        kv = config.kv_memory_mb
        model.config = replace(
            model.config,
            threads=config.threads,
            kv_memory_bytes=None if kv is None else kv * 1_000_000,
            max_sequences=config.max_sequences,
            max_batch_tokens=max(model.config.max_batch_tokens, 2 * config.max_sequences),
            max_waiting=config.max_requests * config.max_answers,
            speculation="prompt_lookup" if config.speculation else "off",
        )
    opened: Model = model
    return opened


def open_embedder(text: str) -> Embedder:
    """The embedder."""
    from firsthand.providers import local_embedder

    return local_embedder.open_embedder(text)
