"""Measures an encoder for `firsthand bench`: documents of mixed length to vectors."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.commands.bench_config import Config
from firsthand.commands.bench_rounds import repeat, with_machine_speeds
from firsthand.errors import ConfigError
from firsthand.hub.encoder_planner import encoder_gflop
from firsthand.hub.inspection import Inspection

if TYPE_CHECKING:
    from firsthand.measure.measurements import BenchResult
    from firsthand.measure.workloads import WorkloadSizes


def measure_encoder(config: Config, path: Path, facts: Inspection, sizes: WorkloadSizes) -> BenchResult:
    """Load the encoder, embed, and gather the figures."""
    from firsthand.embed.embedding import load
    from firsthand.measure import machine
    from firsthand.measure.embedding_documents import documents, embedding
    from firsthand.measure.machine_speeds import torch_threads
    from firsthand.measure.measurements import BenchResult, Measured
    from firsthand.measure.speed_bounds import INT16

    check_encoder(config)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    here = machine.describe()
    threads = config.threads or here.cores
    before = machine.memory_in_use()
    with torch_threads(threads):
        model = load(path, threads=threads)
        loaded = machine.memory_in_use()
        try:
            (figures, _), speeds = with_machine_speeds(
                lambda: repeat(model, [embedding(sizes)], config), threads, once=config.quick, ours=False
            )
            lengths = [len(model.tokenise(text)[0]) for text in documents(sizes, seed=1)]
        finally:
            model.close()
    taken = Measured("memory: model", "MB", "used by loading", ((loaded - before) / 1e6,))
    weights, each = (INT16, 2) if model.is_compiled else ("float32", 4)
    return BenchResult(
        model=config.model,
        path=str(path.resolve()),
        date=date,
        command=config.command(),
        machine=here.to_json(),
        machine_line=here.line(),
        speeds=speeds,
        weights=weights,
        weight_bytes=each * facts.decode_parameters,
        parameters=facts.decode_parameters,
        prefill_gflop=encoder_gflop(facts.decode_parameters, facts.attention_width or 0, mean_attended(lengths)),
        figures=(*figures, taken),
        quick=config.quick,
    )


def mean_attended(lengths: Sequence[int]) -> float:
    """The mean number of tokens that a token attends to: those of its own text, so that long texts weigh more."""
    return sum(length**2 for length in lengths) / sum(lengths)


def check_encoder(config: Config) -> None:
    """Raise ConfigError for settings that an encoder does not have."""
    asked = [
        ("weights", config.weights, "auto"),
        ("kv_cache", config.kv_cache, "auto"),
        ("device", "cpu" if config.device == "auto" else config.device, "cpu"),
    ]
    for name, value, only in asked:
        if value != only:
            raise ConfigError(f"{name} is {value!r}: {config.model} is an encoder, for which it is always {only}")
