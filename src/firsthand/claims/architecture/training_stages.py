"""Stages of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote=(
        "Pre-training on trillions of tokens — learns language. Supervised Fine-Tuning (SFT) on instruction/response "
        "pairs — learns to be helpful. RLHF — human raters rank outputs, trains reward model, PPO optimizes against "
        "it."
    ),
    source="Ouyang et al. 2022, arXiv:2203.02155",
    kind="ours",
    cost_s=20,
)
ASKED, DEMONSTRATIONS, PAIRS, GOOD = 96, 200, 400, 2
"""Openings that each stage answers, good reviews to imitate, pairs that are ranked, and the gold reward of a good review."""


def measure(lab: Lab) -> Measurement:
    """A model of 100,000 parameters goes through the stages on reviews in a tiny language; whoever ranks is simulated by the
    language's gold reward, with Bradley-Terry's noise. A stage is judged by its own aim, against the stage before."""
    from firsthand.benchmarks.toy_reviews import toy_reviews
    from firsthand.claims.toy_training import agent_of, trained

    def reviews(folder: Path, count: int) -> list[tuple[str, str]]:
        agent, benchmark = agent_of(folder, "direct", temperature=1.0, max_tokens=20), toy_reviews(tasks=count)
        tasks = benchmark.tasks(lab.seed)
        traces = lab.attempt(agent, benchmark, list(tasks), concurrency=32)
        return [(task.prompt, f" {(trace.answer or '').strip()}") for task, trace in zip(tasks, traces, strict=True)]

    lab.folder.mkdir(parents=True, exist_ok=True)
    demonstrations, pairs = (lab.folder / f"reviews-{name}-{lab.seed}.jsonl" for name in ("demonstrations", "pairs"))
    stages = {"fresh weights": trained(lab, "toy_writer", "reviews-fresh", steps=1, warmup_steps=0, lr=0)}
    stages["pretraining"] = trained(lab, "toy_writer", "reviews-pretrained", steps=120)
    _write_demonstrations(demonstrations, lab.seed)
    stages["SFT"] = trained(
        lab, "sft", "reviews-sft", data=str(demonstrations), model=str(stages["pretraining"] / "model"), steps=60,
        batch_size=32, lr=1e-3, holdout=0,
    )  # fmt: skip
    _write_pairs(pairs, reviews(stages["SFT"], 2 * PAIRS), lab.seed)
    reward_model = trained(
        lab, "reward", "reviews-reward", data=str(pairs), model=str(stages["SFT"] / "model"), steps=80, batch_size=32,
        lr=1e-3,
    )  # fmt: skip
    stages["RLHF"] = trained(
        lab, "ppo", "reviews-ppo", benchmark="toy_reviews", model=str(stages["SFT"] / "model"),
        reward_model=str(reward_model / "model"), kl=0.1, lr=1e-3, steps=30, prompts=16, group_size=4, max_tokens=20,
    )  # fmt: skip
    return _measured({name: [answer for _, answer in reviews(folder, ASKED)] for name, folder in stages.items()})


def _measured(given: Mapping[str, Sequence[str]]) -> Measurement:
    """`given`: stage -> its answers, the fresh weights' first and those of RLHF last."""
    from statistics import fmean

    from firsthand.benchmarks.toy_reviews import gold_reward

    grammar, gold, rows = list[list[float]](), list[list[float]](), list[tuple[str | float, ...]]()
    for name, answers in given.items():
        grammar.append([float(_is_review(answer)) for answer in answers])
        gold.append([gold_reward(answer) for answer in answers])
        aim = grammar if name == "pretraining" else gold
        gain = paired(aim[-1], aim[-2]) if len(aim) > 1 else None
        own = (0.0, 0.0, 0.0) if gain is None else (gain.difference, gain.low, gain.high)
        rows.append((name, fmean(grammar[-1]), fmean(gold[-1]), *own))
    return Measurement(
        float(rows[-1][3]),
        "gold reward after PPO against a reward model, less that after SFT",
        float(rows[-1][4]),
        float(rows[-1][5]),
        len(gold[-1]),
        columns=("after", "grammatical", "gold reward", "gain of its aim", "low", "high"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: all three stages must improve their aim beyond chance; two of three are a part."""
    gains = {stage: m.cell(stage, "low") > 0 for stage in ("pretraining", "SFT", "RLHF")}
    failed = ", ".join(stage for stage, gained in gains.items() if not gained)
    if not failed:
        return ruling(
            "holds here",
            f"pretraining brings the grammar ({m.cell('pretraining', 'grammatical'):.0%}), SFT lifts the gold reward by "
            f"{m.cell('SFT', 'gain of its aim'):.1f} and RLHF by {m.value:.1f}; a toy language, and raters by formula",
        )
    if sum(gains.values()) == 2:
        return ruling("holds in part", f"no gain beyond chance: {failed}")
    return ruling("does not hold here", f"no gain beyond chance: {failed}")


def _is_review(text: str) -> bool:
    """Adjectives, with a joining word between two."""
    from firsthand.benchmarks.toy_reviews import BLAME, JOINING, NEUTRAL, PRAISE

    words = text.split()
    kinds = ((*PRAISE, *BLAME, *NEUTRAL), JOINING)
    return len(words) % 2 == 1 and all(word in kinds[place % 2] for place, word in enumerate(words))


def _write_demonstrations(path: Path, seed: int) -> None:
    import json
    from random import Random

    from firsthand.benchmarks.toy_reviews import SUBJECTS, VERBS, gold_reward, random_review

    rng, lines = Random(f"demonstrations {seed}"), list[str]()
    while len(lines) < DEMONSTRATIONS:
        if gold_reward(text := random_review(rng)) >= GOOD:
            lines.append(json.dumps({"prompt": f"the {rng.choice(SUBJECTS)} {rng.choice(VERBS)}", "completion": text}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_pairs(path: Path, reviews: list[tuple[str, str]], seed: int) -> None:
    """Two answers to the same opening; which one is preferred is drawn by Bradley-Terry from their gold rewards."""
    import json
    import math
    from random import Random

    from firsthand.benchmarks.toy_reviews import gold_reward

    rng, lines, waiting = Random(f"pairs {seed}"), list[str](), dict[str, str]()
    for prompt, answer in reviews:
        other = waiting.pop(prompt, None)
        if other is None:
            waiting[prompt] = answer
        elif other != answer and other.strip() and answer.strip():
            better = rng.random() < 1 / (1 + math.exp(gold_reward(other) - gold_reward(answer)))
            chosen, rejected = (answer, other) if better else (other, answer)
            lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
