"""Measure a model's speed on this machine: prefill, decoding, chats, forks, choices; for an encoder, embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firsthand.commands.bench_config import Config
from firsthand.commands.bench_decoder import decoder_workloads, measure_decoder
from firsthand.commands.bench_encoder import measure_encoder
from firsthand.commands.bench_rounds import is_wanted
from firsthand.errors import ConfigError, StoreError
from firsthand.hub.fetch_model import fetch_model
from firsthand.hub.inspection import Inspection, inspect
from firsthand.system.new_file import write_new
from firsthand.system.terminal import console, print_table

if TYPE_CHECKING:
    from firsthand.measure.measurements import BenchResult
    from firsthand.measure.workloads import Workload, WorkloadSizes

EXAMPLES = """
firsthand bench smollm2
firsthand bench smollm2 --quick
firsthand bench path/to/model.gguf --rounds 5 --out bench.md --json bench.json
firsthand bench smollm2 --only decode,chats --threads 1
firsthand bench minilm
"""


def main(config: Config) -> int:
    """Measure, print, and keep the result for `firsthand models inspect`."""
    for file in (config.out, config.json):
        check_writable(file)
    result = measure(config, fetch_model(config.model, shown=config.json != "-"))
    from firsthand.measure.measurements import save_result

    if config.is_whole:
        save_result(result)
    if config.out:
        write(config.out, result.markdown())
    if config.json and config.json != "-":
        write(config.json, json.dumps(result.to_json(), indent=2) + "\n")
    if config.json == "-":
        print(json.dumps(result.to_json(), indent=2))
    else:
        show(result)
    return 0


def measure(config: Config, path: Path) -> BenchResult:
    """Measure an encoder or a decoder; ConfigError if `only` matches no figure."""
    facts = inspect(path)
    sizes = chosen_sizes(config)
    check_words(config.only, facts, sizes)
    if facts.is_encoder:
        return measure_encoder(config, path, facts, sizes)
    return measure_decoder(config, path, sizes)


def chosen_sizes(config: Config) -> WorkloadSizes:
    """The size of each workload."""
    from firsthand.measure.workloads import QUICK, WorkloadSizes

    return QUICK if config.quick else WorkloadSizes()


def check_words(only: Sequence[str], facts: Inspection, sizes: WorkloadSizes) -> None:
    """Raise ConfigError before anything is loaded if no figure has one of the words in its name."""
    from firsthand.measure.embedding_documents import embedding

    known: Sequence[Workload[Any]] = [embedding(sizes)]
    if not facts.is_encoder:
        known = decoder_workloads(sizes, vocab=facts.vocabulary or 1 << 15, context=facts.context or sizes.long)
    if not any(is_wanted(each, only) for each in known):
        names = ", ".join(each.name for each in known)
        raise ConfigError(f"only is {','.join(only)!r}: no figure has such a word in its name; there are {names}")


def show(result: BenchResult) -> None:
    """Print the result as a table."""
    from firsthand.measure.machine import is_busy
    from firsthand.measure.measurements import spread

    rows = [[each.name, f"{spread(each.values)} {each.unit}", each.meaning] for each in result.figures]
    print_table(result.model, ["figure", "median (range)", "description"], rows)
    lines = [*(f"left out: {each}" for each in result.left_out), result.machine_line, result.speeds.line()]
    lines.append(result.weights_line)
    if is_busy(result.machine["load"], result.machine["cores"]):
        lines.append("the machine was busy with other work: it can do better than these numbers")
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def check_writable(path: str | None) -> None:
    """Raise ConfigError before minutes of work if a file could not be written in the end."""
    if not path or path == "-":
        return
    file = Path(path).expanduser().absolute()
    if not file.parent.is_dir():
        raise ConfigError(f"the folder of {path!r} does not exist: make it, or name another file")
    if file.is_dir():
        raise ConfigError(f"{path!r} is a folder: name a file, such as {str(Path(path) / 'bench.md')!r}")
    is_stream = file.exists() and not file.is_file()  # such as /dev/stdout: written to, not replaced
    if not is_stream and not os.access(file.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder of {path!r} cannot be written: name a file elsewhere")


def write(path: str, text: str) -> None:
    """Write a file; StoreError if that is not possible."""
    try:
        write_new(Path(path).expanduser(), text)
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from None
