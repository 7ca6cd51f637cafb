"""Completion of an item from its first half, beside its twin's: words that the model adds as they stand in the file.

After Golchin and Surdeanu (2024), "Time travel in LLMs", whose control is a prompt that does not name the data set. A twin
is a control for base models too, which follow no instructions. The overlap is ROUGE-L's recall.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from firsthand.contamination.leak_evidence import MIN_PAIRS, Evidence, paired_p_value
from firsthand.contamination.text_twins import task_text
from firsthand.message import user
from firsthand.model import Model, Sampling, TokenCapability
from firsthand.scorers.text import common_length
from firsthand.task import Task

ASKS = "Does the model finish an item in the file's own words more than it finishes the item's twin?"
LIMITS = "Finds items that are known by heart; a model that was trained on them a few times may not recite them."
EXACT = 0.9
"""Recall from which a completion counts as the item's own words."""
GUIDED = (
    "You are provided with the first part of an instance from the data set {name}. Finish the second part exactly as it "
    "appears in the data set. Write only the second part.\n\n{start}"
)


def halves(text: str) -> tuple[str, str]:
    """The text cut after half of its words; the space goes with the second part."""
    words = text.split(" ")
    cut = max(1, len(words) // 2)
    return " ".join(words[:cut]), " " + " ".join(words[cut:])


def rouge_l_recall(wanted: str, made: str) -> float:
    """The longest common subsequence of words, over the words that were wanted; 0 if none were."""
    want, have = wanted.split(), made.split()
    return common_length(want, have) / len(want) if want else 0.0


async def completion_evidence(
    model: Model, tasks: Sequence[Task], twins: Mapping[str, str], *, name: str = "", seed: int = 0
) -> Evidence:
    """The test over the items that have a twin.

    Args:
        model: A model that completes texts.
        tasks: The items as `without_answers(items)`, because a model that calculates completes right answers.
        twins: Task id -> the text of its twin, as `twins_of(tasks, seed)` makes them of the same tasks.
        name: The data set; with it the model is asked by an instruction that names it.
        seed: Of the model's sampling.
    """
    paired = [task for task in tasks if task.id in twins and len(task_text(task).split()) >= 4]
    if len(paired) < MIN_PAIRS:
        told = f"not run: {len(paired)} items have a twin and four words, and {MIN_PAIRS} are needed"
        return Evidence("completion", ASKS, detail=told, limits=LIMITS)

    async def overlap(text: str) -> float:
        start, end = halves(text)
        length = len(await model.tokenize(end)) if isinstance(model, TokenCapability) else len(end) // 2
        sampling = Sampling(temperature=0, max_tokens=max(8, length + 2), seed=seed)
        prompt = [user(GUIDED.format(name=name, start=start))] if name else start
        (answer,) = await model.complete(prompt, sampling)
        return await asyncio.to_thread(rouge_l_recall, end, answer.message.text)

    async def both(task: Task) -> tuple[float, float]:
        return await overlap(task_text(task)), await overlap(twins[task.id])

    found = np.array(await asyncio.gather(*map(both, paired)))
    differences = found[:, 0] - found[:, 1]
    recited = tuple(task.id for task, own in zip(paired, found[:, 0], strict=True) if own >= EXACT)
    told = (
        f"overlap with the second half {found[:, 0].mean():.2f}, of twins {found[:, 1].mean():.2f}; "
        f"{len(recited)} of {len(paired)} items recited"
    )
    p = paired_p_value(differences)
    return Evidence("completion", ASKS, float(differences.mean()), p, len(paired), told, recited, LIMITS)
