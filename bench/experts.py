"""Speed of a mixture of experts, by the compiled step and by modules, beside llama.cpp on the same GGUF file.

    python bench/experts.py --rival-python VENV/bin/python --rounds 5 --out experts.md

A random model of Qwen3-MoE's shape is written as GGUF by our writer, and every contender reads that file: prefill of one
prompt, then greedy decoding of one stream and of eight together. All take their turn in each round, in a process of their
own. The rival needs `pip install llama-cpp-py-sync numpy` in a virtual environment of its own. `--width`, `--experts` and
`--layers` change the shape; a small one is a smoke run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FIGURES = ("prefill", "decode, 1 stream", "decode, 8 streams")
RIVAL = """
import ctypes, json, sys, time
import numpy as np
from llama_cpp_py_sync._cffi_bindings import ffi, get_lib
lib = get_lib()
job = json.loads(sys.argv[1])
lib.llama_backend_init()
quiet = ffi.callback("void(enum ggml_log_level, const char *, void *)", lambda level, text, data: None)
lib.llama_log_set(quiet, ffi.NULL)
model = lib.llama_model_load_from_file(job["model"].encode(), lib.llama_model_default_params())
assert model != ffi.NULL, "llama.cpp could not load the file"
vocab, prompt, new = job["vocab"], job["prompt"], job["new"]
def rate(streams):
    settings = lib.llama_context_default_params()
    settings.n_ctx = streams * (-(-(len(prompt) + new + 8) // 256) * 256)
    settings.n_batch, settings.n_ubatch, settings.n_seq_max = 2048, 512, streams
    settings.n_threads = settings.n_threads_batch = job["threads"]
    settings.kv_unified = True
    context = lib.llama_init_from_model(model, settings)
    batch = lib.llama_batch_init(2048, 0, 1)
    def put(token, position, slot, wanted):
        n = batch.n_tokens
        batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.seq_id[n][0] = token, position, 1, slot
        batch.logits[n] = wanted
        batch.n_tokens += 1
    def step():
        assert lib.llama_decode(context, batch) == 0
        lib.llama_synchronize(context)
    def prefill():
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        for slot in range(streams):
            batch.n_tokens = 0
            for position, token in enumerate(prompt):
                put((token + slot) % vocab, position, slot, position == len(prompt) - 1)
            step()
    prefill()
    began = time.perf_counter()
    prefill()
    first = time.perf_counter() - began
    tokens = [1] * streams
    began = time.perf_counter()
    for i in range(new):
        batch.n_tokens = 0
        for slot, token in enumerate(tokens):
            put(token, len(prompt) + i, slot, 1)
        step()
        for slot in range(streams):
            row = np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(context, slot), 4 * vocab), dtype=np.float32)
            tokens[slot] = int(row.argmax())
    return streams * len(prompt) / first, streams * new / (time.perf_counter() - began)
(prefill, one), (_, many) = rate(1), rate(8)
print(json.dumps({"prefill": prefill, "decode, 1 stream": one, "decode, 8 streams": many}))
"""


def write_model(args: argparse.Namespace, path: Path) -> int:
    """Writes the model and returns its bytes."""
    from firsthand.nn.decoder import Decoder, initialise
    from firsthand.nn.gguf_writer import save_gguf
    from firsthand.nn.model_config import config_architecture

    config = dict(
        model_type="qwen3_moe", vocab_size=args.vocab, hidden_size=args.width, intermediate_size=3 * args.width,
        num_hidden_layers=args.layers, num_attention_heads=args.width // 64, num_key_value_heads=max(args.width // 256, 1),
        head_dim=64, num_experts=args.experts, num_experts_per_tok=args.per_token, moe_intermediate_size=args.expert_width,
        norm_topk_prob=True, max_position_embeddings=4096,
    )  # fmt: skip
    model = initialise(Decoder(config_architecture(config, Path("config.json"))), seed=0)
    save_gguf(model, path, dtype=args.dtype, vocabulary={"tokenizer.ggml.model": "none"})
    return path.stat().st_size


def ours(job: dict[str, Any]) -> dict[str, float]:
    """Tokens/s of our engine."""
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.engine.core.sequence import Request
    from firsthand.model import Sampling
    from firsthand.nn import weights

    model = weights.load(job["model"], keep_blocks=True)
    engine = Engine(model, EngineConfig(threads=job["threads"]))
    if job["modules"]:
        engine.runner.tap({"embed": lambda values: values})
    prompt, new = job["prompt"], job["new"]

    def rate(streams: int) -> tuple[float, float]:
        def once(tokens: int) -> tuple[float, float, int]:
            for slot in range(streams):  # other ids each time: the engine keeps prefixes
                ids = tuple((token + 8 * tokens + slot) % job["vocab"] for token in prompt)
                engine.add(Request(ids, Sampling(max_tokens=tokens, temperature=0.0)))
            began, first, late, started = time.perf_counter(), 0.0, 0, set()
            while engine.has_work:
                outputs = engine.step()
                late += len(outputs) if first else 0
                started |= {output.request_id for output in outputs}
                if not first and len(started) == streams:
                    first = time.perf_counter()
            return first - began, time.perf_counter() - first, late

        once(2)
        first_s, decode_s, late = once(new + 1)
        return streams * len(prompt) / first_s, late / decode_s

    (prefill, one), (_, many) = rate(1), rate(8)
    return {"prefill": prefill, "decode, 1 stream": one, "decode, 8 streams": many}


def turn(command: list[str]) -> dict[str, float]:
    """The figures of a process."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(f"{command[:2]} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Writes the model, measures in turn, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (
        ("width", 1024), ("layers", 8), ("experts", 64), ("per-token", 8), ("expert-width", 384), ("vocab", 32_000),
        ("prompt", 512), ("new", 64), ("threads", 2), ("rounds", 5),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="Q4_0")
    parser.add_argument("--rival-python")
    parser.add_argument("--no-modules", action="store_true", help="leave out the engine's modules, which are slow")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(ours(json.loads(args.job))))
        return
    from firsthand.measure import machine
    from firsthand.measure.measurements import markdown_table, spread

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts.gguf"
        size = write_model(args, path)
        prompt = [(7919 * i + 13) % args.vocab for i in range(args.prompt)]
        job = dict(model=str(path), prompt=prompt, new=args.new, vocab=args.vocab, threads=args.threads)
        contenders = {"compiled": [sys.executable, __file__, "--job", json.dumps({**job, "modules": False})]}
        if not args.no_modules:
            contenders["modules"] = [sys.executable, __file__, "--job", json.dumps({**job, "modules": True})]
        if args.rival_python:
            contenders["llama.cpp"] = [args.rival_python, "-c", RIVAL, json.dumps(job)]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, command in contenders.items():
                found[name].append(turn(command))
                print(name, found[name][-1], file=sys.stderr)
    columns = {name: [[each[figure] for each in turns] for figure in FIGURES] for name, turns in found.items()}
    rows = []
    for place, figure in enumerate(FIGURES):
        row = [figure, *(spread(columns[name][place]) for name in columns)]
        first = statistics.median(columns["compiled"][place])
        row += [f"{first / statistics.median(columns[name][place]):.2f}x" for name in list(columns)[1:]]
        rows.append(row)
    header = ["tokens/s", *columns, *(f"compiled / {name}" for name in list(columns)[1:])]
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lines = [
        markdown_table(header, rows),
        "",
        f"- {size / 1e6:.0f} MB in {args.dtype}: {args.layers} layers of {args.width}, {args.per_token} of {args.experts} "
        f"experts of {args.expert_width}; prompt of {args.prompt}, {args.new} new tokens",
        f"- {shlex.join(['python', *sys.argv])}; {when}",
        f"- {machine.describe().line()}; {args.threads} threads, {args.rounds} rounds in turn",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
