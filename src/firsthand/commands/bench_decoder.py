"""Measures a decoder for `firsthand bench`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.commands.bench_config import Config
from firsthand.commands.bench_rounds import is_wanted, repeat, with_machine_speeds
from firsthand.hub.planner import prefill_gflop

if TYPE_CHECKING:
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.measure.machine_speeds import Speeds
    from firsthand.measure.measurements import BenchResult, Measured
    from firsthand.measure.workloads import Workload, WorkloadSizes

HEADROOM = 0.9


def measure_decoder(config: Config, path: Path, sizes: WorkloadSizes) -> BenchResult:
    """Load the model, run every workload, and gather the figures."""
    from firsthand.engine.compute.devices import device_line, pick_device
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.measure import machine
    from firsthand.measure.measurements import BenchResult
    from firsthand.measure.workloads import weights_read

    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    here = machine.describe()
    threads = config.threads or here.cores
    before = machine.memory_in_use()
    device = pick_device(config.device)
    settings = EngineConfig(threads=threads, weights=config.weights, kv_cache=config.kv_cache, device=device)
    engine = load(path, settings)
    loaded = machine.memory_in_use()
    chosen, left_out = choose(engine, sizes, config.only)
    (figures, steady), speeds = with_machine_speeds(
        lambda: repeat(engine, chosen, config),
        threads,
        once=config.quick,
        ours=engine.runner.fused is not None,
    )
    parameters, weight_bytes = weights_read(engine)
    a = engine.architecture
    if device == "cpu":  # the speeds are those of the CPU's memory
        figures += bounded(figures, weight_bytes, speeds)
    figures += memory(engine, (before, loaded, steady, machine.memory_in_use()))
    return BenchResult(
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
    """An engine with the model loaded."""
    from firsthand.engine.compute.device_weights import load_weights
    from firsthand.engine.core.engine import Engine

    return Engine(load_weights(path, settings), settings)


def decoder_workloads(sizes: WorkloadSizes, *, vocab: int, context: int) -> list[Workload[Engine]]:
    """All workloads for a decoder of that vocabulary and longest context, in tokens."""
    from firsthand.measure.agent_workloads import agent_workloads
    from firsthand.measure.attention_bench import attention_workload
    from firsthand.measure.choice_workload import scoring
    from firsthand.measure.workloads import serving

    agents = agent_workloads(sizes, vocab=vocab, context=context)
    return [*serving(sizes, vocab=vocab), *agents, attention_workload(sizes), scoring(sizes, vocab=vocab)]


def choose(engine: Engine, sizes: WorkloadSizes, only: Sequence[str]) -> tuple[list[Workload[Engine]], list[str]]:
    """The workloads that fit the model and its memory, and a sentence on each that does not."""
    vocab, context = engine.architecture.vocab_size, engine.architecture.max_position
    room = int(
        HEADROOM * engine.pool.num_blocks * engine.pool.block_size
    )  # the last block of each sequence is not full
    known = decoder_workloads(sizes, vocab=vocab, context=min(context, room // 2))
    wanted, left_out = [], []
    for each in known:
        if not is_wanted(each, only):
            continue
        if each.longest > context:
            reason = f"a sequence of it has {each.longest:,} tokens, and the model's context is {context:,}"
        elif each.positions > room:
            reason = f"it needs a KV cache of {each.positions:,} tokens, and the engine's holds {room:,}"
        elif each.needs_kernels and engine.runner.fused is None:
            reason = "the model does not run in the compiled step, so its attention is torch's own"
        else:
            wanted.append(each)
            continue
        left_out.append(f"{each.name}: {reason}")
    return wanted, left_out


def bounded(figures: Sequence[Measured], weight_bytes: int, speeds: Speeds) -> list[Measured]:
    """Decoding speed at batch size 1 as a share of the memory bandwidth."""
    from firsthand.measure.measurements import DECODE, Measured

    return [
        Measured(
            "memory's speed reached by decode 1",
            "%",
            "weights alone, vs. the fastest memory read seen in this run, this one included",
            tuple(100 * value / max(*each.values, speeds.read_gb_s * 1e9 / weight_bytes) for value in each.values),
        )
        for each in figures
        if each.name == DECODE
    ]


def memory(engine: Engine, in_use: tuple[int, int, int, int]) -> list[Measured]:
    """Memory that the engine took, and blocks that it did not free."""
    from firsthand.measure.measurements import Measured

    before, loaded, steady, end = in_use
    stats = engine.stats()
    return [
        Measured("memory: model and cache", "MB", "used by loading", ((loaded - before) / 1e6,)),
        Measured("memory: in use at the end", "MB", "of the whole process, prefix cache included", (end / 1e6,)),
        Measured(
            "memory: growth",
            "MB",
            "from the first round to the last: pages of the KV cache used for the first time",
            ((end - steady) / 1e6,),
        ),
        Measured("memory: blocks not freed", "blocks", f"of {stats.num_blocks:,}", (stats.used_blocks,)),
    ]
