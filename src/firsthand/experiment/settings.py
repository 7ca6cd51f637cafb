"""Settings of a run by names: read from flags, stored in the Run, and enough to make its agents again.

Runs of earlier versions stored all flags of `firsthand run`; those that say only how it was shown are passed over.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from firsthand import catalog
from firsthand.benchmark import Benchmark, with_last_line_answers
from firsthand.config import build
from firsthand.errors import ConfigError
from firsthand.loop.approval import parse_rules
from firsthand.message import Json
from firsthand.runs.epoch_reducer import check_epochs
from firsthand.runs.run_folder import Run
from firsthand.system.address_secrets import without_secrets_in

MAX_EPOCHS = 100_000
"""At most so many attempts of an agent at a task; all attempts of a run are listed before the first one."""
DISPLAY_FLAGS = ("watch", "otel", "resume", "retry_errors", "json")
"""Flags of `firsthand run` that runs of version 0.6 stored beside their settings."""
CLUSTER = ("on", "workers")
"""Settings that a run states and nobody takes from it: whoever goes on with it says where, or it is done here."""


@dataclass(frozen=True)
class RunSettings:
    """An Experiment by names. Every field is a flag of `firsthand run`."""

    benchmarks: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Benchmarks: names, or Python files of your own; `firsthand list benchmarks` shows the names."""
    model: tuple[str, ...] = ("smollm2",)
    """Models: a known name, a .gguf file, a folder, hf:ORG/NAME, openai:NAME@URL, anthropic:NAME or google:NAME."""
    device: str = "cpu"
    """Device for models that run here: cpu, cuda, cuda:N, or auto (CUDA if available)."""
    weights: Literal["auto", "int8", "float16", "float32"] = "auto"
    """Format of the linear layers of models that run here; auto: the file's own blocks, else float16 where supported."""
    pattern: tuple[str, ...] = ("direct",)
    """Patterns with their options, such as cot,self_consistency:samples=16. The first one is the baseline."""
    tools: tuple[str, ...] = ("calculator",)
    """Tools that patterns may call, with their arguments, such as calculator,files:notes,sql:shop.db,fetch, or none."""
    approve: tuple[str, ...] = ()
    """Approvals: allow, ask or deny by tool or effect, as in external=ask,fetch=deny; a bare word is for irreversible."""
    guard: tuple[str, ...] = ()
    """Guards on prompts, tool calls, results and answers, in order, such as redact:pattern=SECRET, or your own FILE.py."""
    memory: str | None = None
    """Memory of each agent, such as notes:lifetime=run or semantic:facts.db:owner=ann; `list memories` names them."""
    limit: int | None = None
    """Only the first N tasks of each benchmark."""
    epochs: int = 1
    """Attempts of each agent at each task."""
    reduce: str = ""
    """Reducer of epochs in tables: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2; by default its own."""
    metrics: Literal["own", "helm"] = "own"
    """helm: HELM's seven metrics, with perturbed copies of each task; --limit then counts tasks without their copies."""
    answers: Literal["found", "last_line"] = "found"
    """Reading of answers: found anywhere in the text, or last_line alone, such as `Answer: B`."""
    seed: int = 0
    """Seed of all randomness: the same seed gives the same tokens."""
    temperature: float = 0.0
    """Sampling temperature where the pattern sets none; 0 is greedy."""
    max_tokens: int = 256
    """At most this many new tokens in one answer."""
    system: str | None = None
    """A system message that opens every conversation."""
    budget_tokens: int | None = None
    """Tokens (prompt and completion) that one attempt may use, the same for every pattern."""
    budget_calls: int | None = None
    """Calls that one attempt may make."""
    budget_seconds: float | None = None
    """Seconds that one attempt may take."""
    budget_usd: float | None = None
    """Money that one attempt may cost."""
    equal_budget: str | None = field(default=None, metadata={"bare": "auto"})
    """Tune samples, breadth or steps to about N tokens an attempt for each pattern; alone: as many as the most expensive."""
    concurrency: int = 16
    """Max concurrent attempts; on a cluster, per worker."""
    on: str | None = None
    """Run attempts on a Ray cluster: `ray` for this machine's, `ray:HOST:PORT` for another; without it, in this process."""
    workers: int | None = None
    """With --on: this many workers; by default one per GPU that a model here can use, or one per machine."""
    replay: str | None = None
    """Answer from the replies recorded in this run, without the model or outside calls; a missing reply is an error."""
    name: str | None = None
    """Run name: a word that becomes part of the run's id."""

    def __post_init__(self) -> None:
        if self.metrics == "helm":
            self._ask_for_helm_metrics()
        for name in ("limit", "epochs", "concurrency", "max_tokens", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if self.epochs > MAX_EPOCHS:
            raise ConfigError(f"epochs is {self.epochs}: the most is {MAX_EPOCHS:,}, each an attempt at every task")
        if self.equal_budget is not None:
            if self.equal_budget != "auto" and not (self.equal_budget.isdecimal() and int(self.equal_budget) > 0):
                raise ConfigError(
                    f"equal_budget is {self.equal_budget!r}: give a number of tokens, or nothing for what the most "
                    "expensive pattern uses; a benchmark's name must not follow it"
                )
            if len(self.model) > 1 and self.equal_budget:
                raise ConfigError("equal_budget compares patterns, so name one model; run the next one by itself")
        for name in ("model", "pattern"):
            if not getattr(self, name):
                default = words_of(getattr(RunSettings, name))
                raise ConfigError(f"{name} is empty: name one or more, as in --{name} {default}")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigError(f"{name} is {words_of(getattr(self, name))}: name each one once")
        check_epochs(self.reduce, self.epochs)
        parse_rules(self.approve)
        if self.on is not None and self.on.split(":")[0] != "ray":
            raise ConfigError(f"on is {self.on!r}: give ray, or ray:HOST:PORT for a cluster elsewhere")
        if self.workers is not None and self.on is None:
            raise ConfigError("workers are those of a cluster: name it, as in --on ray --workers 8")
        if self.on is not None and self.replay:
            raise ConfigError("replay and on do not go together: leave out --on to replay here")

    def _ask_for_helm_metrics(self) -> None:
        """Name each benchmark as `helm_metrics` wraps it; what is stored says so, and `metrics` is done with."""
        items = f":items={self.limit}" if self.limit is not None and self.limit > 0 else ""
        wrapped = tuple(
            text if text.startswith("helm_metrics") else f"helm_metrics:of={text.replace(':', ';')}{items}"
            for text in self.benchmarks
        )
        for name, value in (("benchmarks", wrapped), ("limit", None if items else self.limit), ("metrics", "own")):
            object.__setattr__(self, name, value)

    def made_benchmarks(self) -> list[Benchmark]:
        """The benchmarks that are named, with answers read as `answers` says; UnknownName or ConfigError if that fails."""
        made = [catalog.benchmark(text) for text in self.benchmarks]
        return made if self.answers == "found" else [with_last_line_answers(each) for each in made]

    def command(self) -> str:
        """The `firsthand run` command line that gives these settings, with variables for the secrets of addresses."""
        stored = self.stored()
        words = ["firsthand", "run", *stored["benchmarks"]]
        for name, value in stored.items():
            if name == "benchmarks" or value == getattr(RunSettings, name):
                continue
            flag = f"--{name.replace('_', '-')}"
            words += [f"{flag}={value}"] if str(value).startswith("-") else [flag, words_of(value)]
        return shlex.join(words)

    def to_json(self) -> dict[str, Any]:
        """The settings by name."""
        return {each.name: getattr(self, each.name) for each in fields(RunSettings)}

    def stored(self) -> dict[str, Any]:
        """The settings by name, as a Run stores them: without the secrets of addresses, see `system/address_secrets.py`.

        The system message stays as it is, since models are told it.
        """
        return {
            name: value if name == "system" else without_secrets_in(value) for name, value in self.to_json().items()
        }

    @property
    def token_budget(self) -> float | None:
        """Tokens that an attempt with each pattern should cost; None without an equal budget, or before it is measured."""
        return None if self.equal_budget in (None, "auto") else float(self.equal_budget or 0)


def settings_from_json(body: Json) -> RunSettings:
    """The settings that a Run, or a fork's Run, stores, without its cluster; ConfigError if a setting is unknown."""
    return build(RunSettings, {name: value for name, value in body.items() if name not in (*DISPLAY_FLAGS, *CLUSTER)})


def stored_settings(run: Run) -> RunSettings:
    """The settings a run was created with, to be made here; ConfigError if names alone cannot make its agents again."""
    config = run.config
    if "fork" in config:
        raise ConfigError(f"{run.id} is a fork: `firsthand fork --resume {run.id}` finishes it")
    if "chat" in config:
        raise ConfigError(f"{run.id} is a saved conversation: `firsthand chat --load {run.id}` continues it")
    if "arena" in config:
        models = shlex.join(map(str, (config["arena"] or {}).get("models", ())))
        raise ConfigError(f"{run.id} is an arena: `firsthand arena {models} --continue {run.id}` goes on with it")
    if config.get("kind") == "train":
        raise ConfigError(
            f"{run.id} is a training run: `firsthand train --resume {shlex.quote(str(run.path))}` goes on with it"
        )
    if config.get("kind") == "track":
        raise ConfigError(f"{run.id} holds metrics that a program logged: run that program again to go on")
    if "agents" in config:
        names = ", ".join(map(str, config["agents"]))
        raise ConfigError(
            f"{run.id} has agents that were made in Python ({names}), and names alone cannot make them again: "
            f"pass the same agents, as in Experiment(agents, ...).resume({run.id!r})"
        )
    return settings_from_json(config)


def words_of(value: object) -> str:
    """A setting as it is written after its flag."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
