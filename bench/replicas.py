"""Which replica a request goes to: our router beside round robin, in prompt tokens that had to be computed.

    python bench/replicas.py MODEL.gguf --replicas 2 --conversations 12 --turns 4 --out replicas.md

Conversations of several turns, of agents that share a system prompt with some others, run at once against replicas on Ray,
each with one thread. Every turn waits for the answer before it, as an agent does. The same conversations are held with each
router, on new replicas. Answers are the same whatever the router; what differs is how much of each prompt was known there.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from serve import words

from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.ray_replicas import open_ray
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.cluster.replicas.router import Router
from firsthand.measure import machine
from firsthand.measure.measurements import markdown_table
from firsthand.message import Message, system, user
from firsthand.model import Sampling, Usage


class RoundRobin(Router):
    """Each request to the next replica."""

    def choose(self, wanted: Sequence[int], loads: Mapping[int, int]) -> int:
        self._turn += 1
        return sorted(loads)[self._turn % len(loads)]


async def hold(model: ReplicatedModel, args: argparse.Namespace) -> tuple[Usage, list[str], float]:
    """Every conversation; what they cost, what was said, and the seconds it took."""
    rng = random.Random(11)
    systems = [words(rng, args.system_words) for _ in range(args.systems)]
    begun = time.perf_counter()

    async def one(number: int) -> tuple[Usage, str]:
        own, usage, said = random.Random(f"conversation {number}"), Usage(), []
        messages: list[Message] = [system(systems[number % args.systems])]
        for _ in range(args.turns):
            await asyncio.sleep(own.expovariate(1 / args.pause_s))
            messages.append(user(words(own, own.randint(10, 60))))
            (answer,) = await model.complete(messages, Sampling(max_tokens=own.randint(8, 32), ignore_eos=True))
            messages.append(answer.message)
            usage += answer.usage
            said.append(answer.message.text)
        return usage, "\n".join(said)

    found = await asyncio.gather(*(one(number) for number in range(args.conversations)))
    whole = sum((usage for usage, _ in found), Usage())
    return whole, [said for _, said in found], time.perf_counter() - begun


async def measure(args: argparse.Namespace, router: Router) -> tuple[Usage, list[str], float, list[float]]:
    """The same with this router, and the answers that each replica gave."""
    settings = {"model": str(Path(args.model).absolute()), "embedder": None, "engine": {"threads": 1}}
    fleet = Fleet(open_ray(settings, args.replicas, address=args.address, cpus=1, gpus=0), args.replicas)
    fleet.router = router
    model = ReplicatedModel(fleet, "m")
    try:
        await model.load()
        usage, said, seconds = await hold(model, args)
        await model.counters()
        return usage, said, seconds, [status.counters["requests"] for status in fleet.statuses()]
    finally:
        model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=12)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--systems", type=int, default=4, help="different system prompts")
    parser.add_argument("--system-words", type=int, default=200)
    parser.add_argument(
        "--pause-s", type=float, default=0.5, help="between an answer and the next question, on average"
    )
    parser.add_argument("--address", default=None, help="of a Ray cluster; by default Ray is started here")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows, answers = [], []
    for name, router in (("prefix-aware", Router()), ("round robin", RoundRobin())):
        usage, said, seconds, shares = asyncio.run(measure(args, router))
        answers.append(said)
        share = usage.cached_tokens / usage.prompt_tokens
        computed = usage.prompt_tokens - usage.cached_tokens
        spread = " and ".join(f"{count:.0f}" for count in shares)
        rows.append([name, f"{usage.prompt_tokens:,}", f"{share:.1%}", f"{computed:,}", spread, f"{seconds:.1f}"])
    header = ["router", "prompt tokens", "found in a cache", "computed", "requests of each replica", "seconds"]
    table = markdown_table(header, rows)
    same = "The answers were the same." if answers[0] == answers[1] else "THE ANSWERS DIFFERED."
    text = f"`python bench/replicas.py {' '.join(sys.argv[1:])}`, {machine.describe().line()}\n\n{table}\n\n{same}\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
