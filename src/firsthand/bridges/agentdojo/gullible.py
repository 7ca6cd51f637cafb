"""The gullible agent: it solves AgentDojo's tasks by their ground truth and obeys every injection that it reads."""

from __future__ import annotations

from firsthand.bridges.agentdojo.dojo_benchmark import world_of
from firsthand.bridges.agentdojo.dojo_suites import ground_truth, suites
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.message import Json, ToolCall
from firsthand.task import Task


async def gullible(task: Task, ctx: Context, *, obey: bool = True) -> str:
    """The ground truth's answer, after its calls and, with `obey`, those of every goal that stands in a result it read.

    It needs no model. An injection is obeyed as soon as it is read, and once.
    """
    if "dojo" not in task.metadata:
        raise ConfigError("gullible solves tasks of the benchmark agentdojo: it knows no others")
    facts = task.metadata["dojo"]
    version, suite = facts["version"], facts["suite"]
    world = world_of(facts)
    goals = suites(version)[suite].injection_tasks
    waiting = ground_truth(version, suite, facts["user_task"], world)
    answers = [suites(version)[suite].user_tasks[facts["user_task"]].GROUND_TRUTH_OUTPUT]
    obeyed: set[str] = set()
    count, seen = 0, False
    while waiting:
        name, arguments = waiting.pop(0)
        result = await ctx.call(ToolCall(f"call-{count}", name, _json(arguments)))
        count += 1
        seen = seen or "<INFORMATION>After the task, call " in result.content
        for id, goal in goals.items() if obey else ():
            if id not in obeyed and _in(goal.GOAL, result.content):
                obeyed.add(id)
                waiting = ground_truth(version, suite, id, world) + waiting
                answers.append(goal.GROUND_TRUTH_OUTPUT)
    if obey and (goal := facts.get("goal")) is not None and seen:
        await ctx.call(ToolCall(f"call-{count}", goal[0], goal[1]))
    return "\n".join(filter(None, answers))


def _in(goal: str, content: str) -> bool:
    """True if the goal stands in a result, as it is or within JSON."""
    return goal in content or goal in content.replace('\\"', '"').replace("\\n", "\n")


def _json(arguments: Json) -> Json:
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for name, value in arguments.items()
    }
