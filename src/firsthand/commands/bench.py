"""Measure how fast a model runs on this machine: prompts, decoding, many chats, long contexts, forks, a tree of thoughts."""

from __future__ import annotations

import datetime
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.commands.models import fetch
from firsthand.errors import ConfigError, StoreError
from firsthand.providers.planner import prefill_gflop
from firsthand.terminal import console, print_table, progress

if TYPE_CHECKING:
    from firsthand.engine.engine import Engine
    from firsthand.engine.measuring.measured import Measured, Result
    from firsthand.engine.measuring.speeds import Speeds
    from firsthand.engine.measuring.workloads import Sizes, Workload
    from firsthand.engine.settings import EngineConfig

EXAMPLES = """
firsthand bench smollm2
firsthand bench smollm2 --quick
firsthand bench path/to/model.gguf --rounds 5 --out bench.md --json bench.json
firsthand bench smollm2 --only decode,chats --threads 1
"""
HEADROOM = 0.9


@dataclass(frozen=True)
class Config:
    """Which model, how often, and where the numbers go."""

    model: str = field(default="smollm2", metadata={"positional": True})
    """The model: a known name, a .gguf file, a folder, or hf:ORG/NAME."""
    rounds: int = 3
    """How often everything is measured; the table gives medians and ranges."""
    seconds: float = 60
    """No new round of a figure begins after this many seconds spent on it."""
    device: str = "cpu"
    """Where the model is computed: cpu, cuda, cuda:N, or auto, which is CUDA where there is one."""
    threads: int | None = None
    """Threads; one for each core by default."""
    weights: Literal["auto", "int8", "float16", "float32"] = "auto"
    """How the engine keeps the weights; auto is the file's own blocks, or else float16."""
    kv_cache: Literal["auto", "float32", "float16", "int8"] = "auto"
    """How it keeps keys and values; auto is float16 where weights are rounded too."""
    only: tuple[str, ...] = ()
    """Only figures whose names contain one of these words."""
    quick: bool = False
    """One short round: shows that everything works, but its numbers mean little."""
    out: str | None = None
    """Write the table to this Markdown file."""
    json: str | None = field(default=None, metadata={"bare": "-"})
    """Write JSON to this file; alone, print it in place of the table."""

    def __post_init__(self) -> None:
        checks = [
            ("rounds", self.rounds >= 1, "1 or more"),
            ("seconds", self.seconds >= 0, "0 or more"),
            ("threads", self.threads is None or 1 <= self.threads <= 1024, "1 to 1024"),
        ]
        for name, good, expected in checks:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {expected}")

    @property
    def is_whole(self) -> bool:
        """Whether it measures everything, of the engine as others use it: then a planner may go by the result."""
        return self == Config(self.model, self.rounds, self.seconds, out=self.out, json=self.json)

    def command(self) -> str:
        """The command line that gives this config."""
        words = ["firsthand", "bench", self.model]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "model" or value == each.default or value == ():
                continue
            words.append("--" + each.name.replace("_", "-"))
            if value is not True:
                words.append(",".join(value) if isinstance(value, tuple) else str(value))
        return shlex.join(words)


def main(config: Config) -> int:
    """Measure, print, and keep the result for `firsthand models inspect`."""
    for file in (config.out, config.json):
        check_writable(file)
    result = measure(config, fetch(config.model, shown=config.json != "-"))
    from firsthand.engine.measuring.measured import keep

    if config.is_whole:
        keep(result)
    if config.out:
        write(config.out, result.markdown())
    if config.json and config.json != "-":
        write(config.json, json.dumps(result.to_json(), indent=2) + "\n")
    if config.json == "-":
        print(json.dumps(result.to_json(), indent=2))
    else:
        show(result)
    return 0


def measure(config: Config, path: Path) -> Result:
    """Load the model, run every workload, and gather what they gave."""
    from firsthand.engine.devices import device_line, pick_device
    from firsthand.engine.measuring import machine
    from firsthand.engine.measuring.measured import Result
    from firsthand.engine.measuring.speeds import better, remember
    from firsthand.engine.measuring.speeds import measure as measure_speeds
    from firsthand.engine.measuring.workloads import QUICK, Sizes, weights_read
    from firsthand.engine.settings import EngineConfig

    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    here = machine.describe()
    threads = config.threads or here.cores
    before = machine.memory_in_use()
    device = pick_device(config.device)
    settings = EngineConfig(threads=threads, weights=config.weights, kv_cache=config.kv_cache, device=device)
    engine = load(path, settings)
    loaded = machine.memory_in_use()
    chosen, left_out = choose(engine, QUICK if config.quick else Sizes(), config.only)
    early = [] if config.quick else [measure_speeds(threads)]
    figures, steady = repeat(engine, chosen, config)
    late = measure_speeds(threads, ours=engine.runner.fused is not None)
    speeds = reduce(better, early, late)
    remember(speeds)
    parameters, weight_bytes = weights_read(engine)
    a = engine.architecture
    if device == "cpu":  # the speeds are those of the CPU's memory
        figures += bounded(figures, weight_bytes, speeds)
    figures += memory(engine, (before, loaded, steady, machine.memory_in_use()))
    return Result(
        model=config.model,
        path=str(path.resolve()),
        date=date,
        command=config.command(),
        machine=here.to_json(),
        machine_line=here.line() + device_line(device),
        speeds=speeds,
        weights=engine.weights,
        weight_bytes=weight_bytes,
        parameters=parameters,
        prefill_gflop=prefill_gflop(parameters, a.vocab_size * a.hidden_size, a.num_layers * a.num_heads * a.head_dim),
        figures=tuple(figures),
        left_out=tuple(left_out),
        quick=config.quick,
    )


def load(path: Path, settings: EngineConfig) -> Engine:
    """An engine with the model in it."""
    from firsthand.engine.engine import Engine
    from firsthand.providers.local import load_weights

    return Engine(load_weights(path, settings), settings)


def choose(engine: Engine, sizes: Sizes, only: Sequence[str]) -> tuple[list[Workload], list[str]]:
    """The workloads that fit the model and its memory, and sentences on those that do not."""
    from firsthand.engine.measuring.agent_workloads import agent_workloads
    from firsthand.engine.measuring.workloads import serving

    vocab, context = engine.architecture.vocab_size, engine.architecture.max_position
    room = int(
        HEADROOM * engine.pool.num_blocks * engine.pool.block_size
    )  # the last block of each sequence is not full
    known = serving(sizes, vocab=vocab) + agent_workloads(sizes, vocab=vocab, context=min(context, room // 2))
    wanted = [each for each in known if is_wanted(each, only)]
    if not wanted:
        names = ", ".join(each.name for each in known)
        raise ConfigError(f"only is {','.join(only)!r}: no figure has such a word in its name; there are {names}")
    left_out = []
    for each in list(wanted):
        if each.longest > context:
            reason = f"a sequence of it has {each.longest:,} tokens, and the model's context is {context:,}"
        elif each.positions > room:
            reason = f"it needs keys and values of {each.positions:,} tokens, and memory was set aside for {room:,}"
        else:
            continue
        wanted.remove(each)
        left_out.append(f"{each.name}: {reason}")
    return wanted, left_out


def is_wanted(workload: Workload, only: Sequence[str]) -> bool:
    """Whether one of the words is in the name of one of its figures; without words, always."""
    return not only or any(word.lower() in figure.name.lower() for word in only for figure in workload.figures)


def repeat(engine: Engine, chosen: Sequence[Workload], config: Config) -> tuple[list[Measured], int]:
    """The figures, one value a round, and the memory in use after the first round. A round takes every workload in turn.

    The first run of each workload does not count: kernels are compiled in it, and pages of memory touched.
    """
    from firsthand.engine.measuring.machine import memory_in_use
    from firsthand.engine.measuring.measured import Measured

    rounds = 1 if config.quick else config.rounds
    values: list[list[Sequence[float]]] = [[] for _ in chosen]
    spent = [0.0] * len(chosen)
    steady = 0
    with progress(config.model, len(chosen) * (rounds + 1), shown=config.json != "-") as update:
        for turn in range(rounds + 1):
            for place, workload in enumerate(chosen):
                update(turn * len(chosen) + place, note=workload.name)
                if turn > 1 and spent[place] > config.seconds:
                    continue
                started = time.monotonic()
                found = workload.measure(engine, turn)
                spent[place] += time.monotonic() - started
                if turn > 0:
                    values[place].append(found)
            steady = steady or memory_in_use()
    figures = [
        Measured(figure.name, figure.unit, figure.meaning, tuple(each[index] for each in rows))
        for workload, rows in zip(chosen, values, strict=True)
        for index, figure in enumerate(workload.figures)
    ]
    return figures, steady


def bounded(figures: Sequence[Measured], weight_bytes: int, speeds: Speeds) -> list[Measured]:
    """The share of the memory's speed that decoding one answer reaches."""
    from firsthand.engine.measuring.measured import DECODE, Measured

    return [
        Measured(
            "memory's speed reached by decode 1",
            "%",
            "weights alone, against the fastest reading of memory that was seen in this run, this one among it",
            tuple(100 * value / max(*each.values, speeds.read_gb_s * 1e9 / weight_bytes) for value in each.values),
        )
        for each in figures
        if each.name == DECODE
    ]


def memory(engine: Engine, in_use: tuple[int, int, int, int]) -> list[Measured]:
    """What the engine took, and what it did not give back."""
    from firsthand.engine.measuring.measured import Measured

    before, loaded, steady, end = in_use
    stats = engine.stats()
    return [
        Measured("memory: model and cache", "MB", "taken by loading", ((loaded - before) / 1e6,)),
        Measured("memory: in use at the end", "MB", "of the whole process, cached text included", (end / 1e6,)),
        Measured(
            "memory: growth",
            "MB",
            "from the first round to the last: pages of the cache that were used for the first time",
            ((end - steady) / 1e6,),
        ),
        Measured("memory: blocks not given back", "blocks", f"of {stats.num_blocks:,}", (stats.used_blocks,)),
    ]


def show(result: Result) -> None:
    """Print the result as a table."""
    from firsthand.engine.measuring.machine import is_busy
    from firsthand.engine.measuring.measured import spread

    rows = [[each.name, f"{spread(each.values)} {each.unit}", each.meaning] for each in result.figures]
    print_table(result.model, ["figure", "median (range)", "what it is"], rows)
    lines = [*(f"left out: {each}" for each in result.left_out), result.machine_line, result.speeds.line()]
    lines.append(f"weights: {result.weights}, {result.weight_bytes / 1e6:,.1f} MB read in each step of decoding")
    if is_busy(result.machine["load"], result.machine["cores"]):
        lines.append("the machine was busy with other work: these numbers are lower than what it can do")
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def check_writable(path: str | None) -> None:
    """Raise ConfigError before minutes of work if a file could not be written in the end."""
    if path and path != "-" and not Path(path).expanduser().absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path!r} does not exist: make it, or name another file")


def write(path: str, text: str) -> None:
    """Write a file; StoreError if that is not possible."""
    try:
        Path(path).expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from None
