"""Labels pairs of answers by the principles of a constitution, as stored preferences (Bai et al., 2022, section 4.1).

A model reads the request, one principle and both answers in both orders, and the probabilities of the labels A and B decide.
The preference names the principle by its id, so that data trained on can be traced back to the sentence behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model
from firsthand.patterns.parts.constitution import Principle
from firsthand.patterns.parts.label_choice import choose
from firsthand.preference import Preference, utc_now
from firsthand.rollout import rollout
from firsthand.system.forged_marks import defused
from firsthand.task import Task
from firsthand.trace import Trace

TEXT = (
    "Consider this request:\n\n{request}\n\nPrinciple: {rule}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
    "Which answer follows the principle better? Reply with A or B."
)

_MARKS = ("Consider this request:", "Principle:", "Answer A:", "Answer B:")


def answer_pairs(traces: Iterable[Trace]) -> Iterator[tuple[Trace, Trace]]:
    """The attempts at each task in pairs, in their order; those without an answer, and equal answers, are left out."""
    by_task: dict[tuple[str, str], list[Trace]] = defaultdict(list)
    for trace in traces:
        if trace.error is None and trace.answer is not None:
            by_task[trace.benchmark, trace.task_id].append(trace)
    for attempts in by_task.values():
        for a, b in zip(attempts[::2], attempts[1::2], strict=False):
            if (a.answer or "").strip() != (b.answer or "").strip():
                yield a, b


async def label_pair(model: Model, question: str, a: Trace, b: Trace, principles: Sequence[Principle]) -> Preference:
    """The preference of a model between two attempts by one principle, drawn by the task's id; a tie at exactly one half.

    ConfigError if the model fails.
    """
    principle = Random(derive_seed("principle label", a.task_id)).choice(principles)
    metadata = {"answers": [a.answer, b.answer], "rule": principle.rule}
    task = Task(a.task_id, question, metadata=metadata)
    trace = await rollout(Agent("label", model, _weigh), task)
    if trace.error is not None:
        raise ConfigError(f"the label of {a.task_id} by {principle.id} failed: {trace.error.message}")
    (noted,) = (event.data for event in trace.events if event.kind == "label")
    share = sum(noted["first"]) / 2
    winner = "a" if share > 0.5 else "b" if share < 0.5 else "tie"
    detail = {"principle": principle.id, "probability": share, "orders": noted["first"]}
    return Preference(a.task_id, a.id, b.id, winner, label_maker(model), utc_now(), detail)  # type: ignore[arg-type]


def label_maker(model: Model) -> str:
    """The name under which a model's labels are kept."""
    return f"constitution:{model.name}"


async def _weigh(task: Task, ctx: Context) -> str:
    """Notes the probability that the first answer is preferred, when it stands as A and when it stands as B."""
    one, two = task.metadata["answers"]
    found = []
    for first, second, label in ((one, two, "A"), (two, one, "B")):
        request, first, second = (defused(each, _MARKS)[0] for each in (task.prompt, first, second))
        text = TEXT.format(request=request, rule=task.metadata["rule"], first=first, second=second)
        found.append((await choose(ctx.say(text), ("A", "B"))).probabilities[label])
    ctx.note("label", first=found)
    return ""
