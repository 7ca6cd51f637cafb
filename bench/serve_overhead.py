"""What the server costs over the bare engine, in processor time and in seconds, on the same answers in interleaved rounds.

    python bench/serve_overhead.py MODEL.gguf --rounds 5 --together 32 --tokens 64

Three processes stay up and take turns at the same job: chats asked at once with a shared system prompt, greedy, the end of a
turn ignored, so that each has the same prompts and as many tokens as the others.
- engine: `Engine.add` and `Engine.step` in one thread, prompts encoded beforehand; nobody reads the tokens as text
- library: `Local.stream_many`, which adds the engine's own thread, an event loop, the chat template and the text
- server: `firsthand serve`, every answer streamed over HTTP to a client in this process

Processor time is that of the party's own threads (`/proc/PID/task/*/schedstat`). The client's is told apart and no part of
it; in the server's seconds the client has its share, since it runs on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_load import Client, Result, free_port, words


def cpu_s(pid: int) -> float:
    """Processor time that the living threads of a process have had, in seconds."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def questions(turn: int, count: int) -> list[str]:
    """The questions of a round; no two rounds share one."""
    rng = random.Random(turn)
    return [f"Tell me {turn} {place} of {words(rng, 20)}" for place in range(count)]


def run_engine(spec: dict) -> None:
    """The party `engine`: a job a line on standard input, its figures a line on standard output."""
    from firsthand.engine.compute.device_weights import load_weights
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.engine.core.sequence import Request
    from firsthand.message import system, user
    from firsthand.model import Sampling
    from firsthand.tokens import pretrained
    from firsthand.tokens.templates.chat_template import ChatTemplate

    config, path = EngineConfig(threads=spec["threads"]), Path(spec["model"])
    tokenizer = pretrained.load(path)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    engine = Engine(load_weights(path, config), config)
    for job in jobs():
        prompts = [tuple(chat.encode([system(spec["system"]), user(each)], ())) for each in job["questions"]]
        sampling = Sampling(max_tokens=job["tokens"], ignore_eos=True)
        count = 0
        with timed() as figures:
            for prompt in prompts:
                engine.add(Request(prompt=prompt, sampling=sampling))
            while engine.has_work:
                count += sum(len(output.token_ids) for output in engine.step())
        tell(figures, count)


def run_library(spec: dict) -> None:
    """The party `library`."""
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.message import system, user
    from firsthand.model import Sampling
    from firsthand.providers.local import Local

    model = Local(spec["model"], config=EngineConfig(threads=spec["threads"]))

    async def ask(question: str, most: int) -> int:
        prompt, count = [system(spec["system"]), user(question)], 0
        async for delta in model.stream_many(prompt, Sampling(max_tokens=most, ignore_eos=True)):
            count += len(delta.token_ids)
        return count

    async def main() -> None:
        for job in jobs():
            with timed() as figures:
                counts = await asyncio.gather(*(ask(question, job["tokens"]) for question in job["questions"]))
            tell(figures, sum(counts))

    asyncio.run(main())
    model.close()


def jobs() -> Iterator[dict]:
    """The jobs on standard input."""
    for line in sys.stdin:
        yield json.loads(line)


@contextmanager
def timed() -> Iterator[dict]:
    """Seconds and processor seconds of this process for what is done inside."""
    figures: dict = {}
    cpu, begun = cpu_s(os.getpid()), time.perf_counter()
    yield figures
    figures |= {"wall_s": time.perf_counter() - begun, "cpu_s": cpu_s(os.getpid()) - cpu}


def tell(figures: dict, tokens: int) -> None:
    """Figures as a line on standard output."""
    print(json.dumps({**figures, "tokens": tokens}), flush=True)


class Worker:
    """A party in a process of its own that takes jobs on standard input."""

    def __init__(self, party: str, spec: dict):
        command = [sys.executable, __file__, "--party", party, json.dumps(spec)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, job: dict) -> dict:
        """The figures of a job."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit("a party of the measurement ended early")
        found: dict = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Served:
    """The party `server`, asked over HTTP from this process."""

    def __init__(self, spec: dict):
        port = free_port()
        command = [sys.executable, "-m", "firsthand", "serve", spec["model"], "--name", "m", "--log", "none"]
        command += ["--threads", str(spec["threads"]), "--port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._client = Client(port, "m", spec["system"], {"ignore_eos": True})

    def wait_until_ready(self, most_s: float = 600) -> None:
        """Until it answers."""
        end = time.monotonic() + most_s
        while asyncio.run(self._client.ask("Hello", 2)).error:
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit("firsthand serve did not start")
            time.sleep(0.5)

    def run(self, job: dict) -> dict:
        """The figures of a job, with those of the client."""

        async def all_at_once() -> list[Result]:
            return await asyncio.gather(*(self._client.ask(each, job["tokens"]) for each in job["questions"]))

        pid = self._process.pid
        cpu, mine, begun = cpu_s(pid), time.process_time(), time.perf_counter()
        results = asyncio.run(all_at_once())
        figures = {"wall_s": time.perf_counter() - begun, "cpu_s": cpu_s(pid) - cpu}
        if errors := [each.error for each in results if each.error]:
            raise SystemExit(f"the server failed: {errors[0]}")
        tokens = len(job["questions"]) * job["tokens"]
        return {**figures, "client_cpu_s": time.process_time() - mine, "tokens": tokens}

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure(spec: dict, *, rounds: int, together: int, tokens: int) -> dict[str, list[dict]]:
    """The figures of each party, round by round, each round begun by another one."""
    server = Served(spec)
    parties = {"engine": Worker("engine", spec), "library": Worker("library", spec), "server": server}
    found: dict[str, list[dict]] = {name: [] for name in parties}
    try:
        server.wait_until_ready()
        for turn in range(rounds + 1):
            job = {"questions": questions(turn, together), "tokens": tokens}
            order = list(parties)
            for name in order[turn % 3 :] + order[: turn % 3]:
                figures = parties[name].run(job)
                if figures["tokens"] != together * tokens:
                    raise SystemExit(f"{name} gave {figures['tokens']} tokens of {together * tokens}")
                if turn:  # the first round warms up
                    found[name].append(figures)
                told = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                print(f"round {turn}, {name}: {told}", file=sys.stderr, flush=True)
    finally:
        for party in parties.values():
            party.close()
    return found


def over(found: dict[str, list[dict]], name: str, base: str, key: str) -> float:
    """By what share a party's figure is above another's in the same round, the median of the rounds."""
    return statistics.median(a[key] / b[key] for a, b in zip(found[name], found[base], strict=True)) - 1


def lines(found: dict[str, list[dict]], together: int) -> list[str]:
    """What was measured, as items of a Markdown list."""
    told = []
    for name in ("library", "server"):
        cpu, wall = over(found, name, "engine", "cpu_s"), over(found, name, "engine", "wall_s")
        told.append(
            f"- {together} answers at once, {name} over the bare engine: {cpu:+.1%} processor time, {wall:+.1%} seconds"
        )
    cpu, wall = over(found, "server", "library", "cpu_s"), over(found, "server", "library", "wall_s")
    told.append(f"- {together} answers at once, server over library: {cpu:+.1%} processor time, {wall:+.1%} seconds")
    tokens = found["server"][0]["tokens"]
    each = {name: statistics.median(f["cpu_s"] for f in figures) / tokens * 1e6 for name, figures in found.items()}
    each["client"] = statistics.median(f["client_cpu_s"] for f in found["server"]) / tokens * 1e6
    told.append("- processor time a token: " + ", ".join(f"{name} {us:.0f} us" for name, us in each.items()))
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--system-words", type=int, default=600)
    args = parser.parse_args()
    spec = {"model": args.model, "threads": args.threads, "system": words(random.Random(3), args.system_words)}
    found = measure(spec, rounds=args.rounds, together=args.together, tokens=args.tokens)
    print("\n".join(lines(found, args.together)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--party"]:
        {"engine": run_engine, "library": run_library}[sys.argv[2]](json.loads(sys.argv[3]))
    else:
        main()
