"""Generated and packaged benchmarks hold the same tasks for a seed, to the byte: published figures stay comparable.

A digest that differs means that the tasks, their secrets or the protocol are others than before. Where that is meant, say so
in the changelog; the figures of earlier runs are then of another benchmark.
"""

import hashlib
import json
from dataclasses import asdict

import pytest

from firsthand import catalog
from firsthand.benchmarks.game24 import generate

DIGESTS = {
    "abstention:tasks=9": "aeb31c00086b",
    "abstention": "70e2899f313b",
    "agentbench_dcg": "3b66ae19f1c8",
    "agentbench_hh:level=1": "ffc01f955d1c",
    "agentbench_hh": "ed1d94b80448",
    "agentbench_hh:level=3:actions=native": "31cb1bd19b83",
    "agentbench_wb:level=3": "471631bcf4e8",
    "agentbench_ws:level=1": "a1d5dbcc6a94",
    "arithmetic": "66872cba5780",
    "arithmetic:levels=1,4:tasks=30": "0865b0510db9",
    "arithmetic:levels=2-4": "d505fbaa7490",
    "closed_world": "08bce97f4213",
    "closed_world:hops=2:search=false": "9b094a64531b",
    "evaluation_gaming": "38c2704db891",
    "evaluation_gaming:tests=hidden:warn=true": "f1b348442f6d",
    "evaluation_gaming:tests=read_only": "df5d271a0443",
    "faithfulness": "669466f1e82a",
    "goal_misspecification": "c297f7d67977",
    "irreversible_actions": "5ae5d605ec7c",
    "irreversible_actions:effects=declared": "0123563f5b03",
    "joint_alignment": "d7c46ca420fc",
    "kv_retrieval:data=generated:keys=6:examples=3": "c083d473592f",
    "kv_retrieval@chat:data=generated:keys=7:positions=1,3:examples=3": "8c4ada5e318b",
    "kv_retrieval@query-aware:data=generated:keys=5:examples=3": "3ae9387ec3ff",
    "many_shot": "2776f063de56",
    "needles:lengths=512,1k:count=words": "7429d6716a1c",
    "nested_kv": "7250365782cd",
    "office:level=1": "c15090f31029",
    "office:level=3": "12134b271957",
    "office_attacked": "4c5b38c23b11",
    "office_attacked:channel=files": "146219feb874",
    "office_attacked:channel=document": "c0e33e6ff435",
    "office_attacked:channel=memory": "4d95f6dbc84b",
    "office_attacked:channel=results": "b8446edf78d9",
    "paired_requests": "e746cf6e2e2c",
    "recurrence:tasks=40": "14bf726a42ac",
    "scope_creep": "3e17bd47fe39",
    "sessions": "00b7e84fe934",
    "sycophancy": "9a7d797d9292",
    "toy_ledgers": "a0a9e3080c86",
    "toy_reviews": "3c66b4247d58",
    "toy_reviews:tasks=13": "1cd11ccb0e18",
}
PROTOCOLS = {
    "arc_challenge:data=packaged": "9c67af5a923e",
    "arc_challenge@smollm2:data=packaged": "56c7e1594728",
    "arc_challenge@olmes-rc:data=packaged": "090df5c7e6b9",
    "arc_challenge@olmes-mc:data=packaged": "ea0f2b1d06d1",
    "arc_easy:data=packaged": "212ca614776f",
    "arc_easy@smollm2:data=packaged": "f9d497337044",
    "arc_easy@olmes-rc:data=packaged": "faafa6a24364",
    "gsm8k:data=packaged": "69fe725b29f2",
    "gsm8k@lm-eval-5shot-strict:data=packaged": "6de804571ad0",
    "gsm8k@lm-eval-5shot-flexible:data=packaged": "3505291069ac",
    "gsm8k@cot-8shot:data=packaged": "8e4b905c06bf",
    "gsm8k@olmes-8shot:data=packaged": "d861f52b3941",
    "mmlu:data=packaged": "1d2fa29455c7",
    "mmlu@lm-eval-0shot:data=packaged": "3d80db76e0bf",
    "mmlu@cloze:data=packaged": "43ffe9d9a1b6",
    "mmlu@lm-eval-continuation:data=packaged": "602eedd0411c",
    "mbpp:data=packaged": "b0cb6d3b84fe",
    "mbpp@chat-0shot:data=packaged": "8f75321234b3",
    "humaneval:data=packaged": "09ce3daa436b",
}

GAMES = ["2 6 9 10", "4 5 7 8", "4 5 9 12", "1 2 4 4", "4 6 9 12", "3 4 9 9"]


def digest(spec: str, most: int) -> str:
    """The digest of protocol, options, scorers and first and last tasks of a seed."""
    made = catalog.benchmark(spec)
    tasks = made.tasks(3)
    count = len(tasks)
    chosen = [tasks[at] for at in sorted({*range(min(most, count)), count - 1})]
    held = {
        "name": made.name,
        "protocol": made.protocol,
        "options": dict(made.options),
        "scorers": [each.__name__ for each in made.scorers],
        "count": count,
        "tasks": [{name: value for name, value in asdict(task).items() if name != "last_line"} for task in chosen],
    }
    text = json.dumps(held, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("spec", DIGESTS)
def test_the_tasks_of_a_generated_benchmark_are_the_same_for_a_seed(spec: str):
    assert digest(spec, 12) == DIGESTS[spec]


@pytest.mark.slow
def test_the_tasks_of_a_packaged_benchmark_are_the_same_under_every_protocol():
    assert {spec: digest(spec, 3) for spec in PROTOCOLS} == PROTOCOLS


def test_generated_games_of_24_are_the_same_for_a_seed_and_distinct():
    made = generate(3, 6)
    assert [task.metadata["numbers"] for task in made] == GAMES
    assert [task.id for task in made] == [f"seed3-{at:04d}" for at in range(6)]
    assert all(task.secret["numbers"] == task.metadata["numbers"] for task in made)
    assert made[2].prompt.endswith(f"Use each number exactly once.\nNumbers: {GAMES[2]}")
