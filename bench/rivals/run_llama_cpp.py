"""llama.cpp on the jobs of a spec. Run by ../engine.py: `PYTHON run_llama_cpp.py SPEC.json RESULT.json`.

It drives libllama through llama-cpp-python's bindings as llama-server does with as many slots as there are prompts: one
batch takes a token for each answer under way and then prompt tokens up to 2,048, and is decoded with the server's defaults
(physical batches of 512, flash attention chosen by the library). HTTP, JSON and the sampler chain are left out, which is in
its favour: the next token is numpy's argmax. Every job runs with one cache for all slots and with a cache for each, and the
faster counts.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as lc
import numpy as np

N_BATCH, N_UBATCH = 2048, 512


class Server:
    """A context with a number of slots."""

    def __init__(self, model, threads: int, slots: int, per_slot: int, unified: bool):
        settings = lc.llama_context_default_params()
        settings.n_ctx = slots * per_slot
        settings.n_batch, settings.n_ubatch = N_BATCH, N_UBATCH
        settings.n_seq_max = slots
        settings.n_threads = settings.n_threads_batch = threads
        settings.kv_unified = unified
        settings.no_perf = True
        self.context = lc.llama_init_from_model(model, settings)
        if not self.context:
            raise SystemExit("llama.cpp could not make a context")
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
        self.batch = lc.llama_batch_init(N_BATCH, 0, 1)

    def clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)

    def close(self) -> None:
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.context)

    def put(self, token: int, position: int, slot: int, wanted: bool) -> None:
        batch, place = self.batch, self.batch.n_tokens
        batch.token[place] = token
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = slot
        batch.logits[place] = wanted
        batch.n_tokens += 1

    def best(self, place: int) -> int:
        row = lc.llama_get_logits_ith(self.context, place)
        return int(np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (self.vocab,)).argmax())

    def run(self, prompts: list[list[int]], max_tokens: list[int]) -> tuple[float, float, int, int]:
        """Seconds to every first token and to the end, output tokens, and those after every first token."""
        self.clear()
        fed = [0] * len(prompts)
        answers: list[list[int]] = [[] for _ in prompts]
        started = first = time.perf_counter()
        output = at_first = 0
        while any(len(answer) < most for answer, most in zip(answers, max_tokens, strict=True)):
            self.batch.n_tokens = 0
            wanted: list[tuple[int, int]] = []
            for slot, answer in enumerate(answers):  # answers under way come first, as in the server
                if answer and len(answer) < max_tokens[slot]:
                    wanted.append((slot, self.batch.n_tokens))
                    self.put(answer[-1], len(prompts[slot]) + len(answer) - 1, slot, True)
            for slot, prompt in enumerate(prompts):
                end = min(len(prompt), fed[slot] + N_BATCH - self.batch.n_tokens)
                for position in range(fed[slot], end):
                    last = position == len(prompt) - 1
                    if last:
                        wanted.append((slot, self.batch.n_tokens))
                    self.put(prompt[position], position, slot, last)
                fed[slot] = end
            if lc.llama_decode(self.context, self.batch) != 0:
                raise SystemExit("llama_decode failed")
            for slot, place in wanted:
                answers[slot].append(self.best(place))
            output += len(wanted)
            if at_first == 0 and all(answers):
                first, at_first = time.perf_counter(), output
        ended = time.perf_counter()
        return first - started, ended - started, output, output - at_first


def rate(model, threads: int, name: str, job: dict, unified: bool) -> float:
    """Tokens/s of a job."""
    prompts, most = job["prompts"], job["max_tokens"]
    per_slot = -(-max(len(prompt) + new for prompt, new in zip(prompts, most, strict=True)) // 256) * 256
    server = Server(model, threads, len(prompts), per_slot, unified)
    try:
        server.run(prompts[:1], [2])  # the first graph is built outside the time
        first_s, total_s, output, decoded = server.run(prompts, most)
    finally:
        server.close()
    if name.startswith("prefill"):
        return len(prompts[0]) / first_s
    return decoded / (total_s - first_s) if name.startswith("decode") else output / total_s


def main(spec_path: str, result_path: str) -> None:
    """Warm up, run each job once, write tokens/s by name."""
    spec = json.loads(Path(spec_path).read_text())
    silent = lc.llama_log_callback(lambda level, text, data: None)
    lc.llama_log_set(silent, ctypes.c_void_p(0))
    lc.llama_backend_init()
    settings = lc.llama_model_default_params()
    model = lc.llama_model_load_from_file(spec["model"].encode(), settings)
    if not model:
        raise SystemExit(f"llama.cpp could not load {spec['model']}")
    for name, job in list(spec["warmup"].items())[:2]:  # pages of the file; `rate` warms up each context by itself
        rate(model, spec["threads"], name, job, True)
    figures, faster = {}, {}
    for name, job in spec["jobs"].items():
        ways = (True, False) if len(job["prompts"]) > 1 else (True,)
        rates = {unified: rate(model, spec["threads"], name, job, unified) for unified in ways}
        figures[name] = max(rates.values())
        faster[name] = "one cache" if rates[True] == figures[name] else "a cache for each"
    shared = ", ".join(f"{name}: {way}" for name, way in faster.items() if len(spec["jobs"][name]["prompts"]) > 1)
    about = f"llama-cpp-python {lc.__version__}, the file's own weights; faster with {shared}"
    Path(result_path).write_text(json.dumps({"about": about, "figures": figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
