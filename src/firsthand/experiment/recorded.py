"""Models, judges and tools that answer from a recorded run: a replay asks no model and calls nothing outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from firsthand.benchmark import Benchmark, Scorer
from firsthand.errors import ToolError
from firsthand.loop.tool_call import tool_request
from firsthand.message import Json, ToolCall
from firsthand.model import Model
from firsthand.providers.cached import Replay
from firsthand.providers.replies_by_place import RepliesByPlace
from firsthand.runs import store
from firsthand.scorers.model_judge import JudgeScorer, judged_by
from firsthand.scorers.rag_judgements import RagJudge
from firsthand.system.home import data_home
from firsthand.tool import Tool


def recorded_models(ref: str, names: Sequence[str]) -> list[Model]:
    """Models that give the replies which that run recorded from models of the same names."""
    source = store.open_run(ref, data_home())
    fingerprints = {agent["model"]: agent["fingerprint"] for agent in source.agents().values()}
    return [Replay(source, name=name, fingerprint=fingerprints.get(name, "")) for name in names]


def with_recorded_judges(benchmark: Benchmark, ref: str) -> Benchmark:
    """The benchmark with judges that answer from what that run recorded."""

    def recorded(scorer: Scorer) -> Scorer:
        if not isinstance(scorer, JudgeScorer | RagJudge):
            return scorer
        model = scorer.agent.model
        source = store.open_run(ref, data_home())
        replayed = Replay(source, name=model.name, fingerprint=model.fingerprint)
        if isinstance(scorer, RagJudge):
            return replace(scorer, agent=replace(scorer.agent, model=replayed))
        return judged_by(scorer, replayed)

    return replace(benchmark, scorers=tuple(map(recorded, benchmark.scorers)))


def as_recorded(tool: Tool, ref: str) -> Tool:
    """The tool, answering from what that run recorded if a call would reach outside; else the tool itself."""
    if tool.effect == "write" or (tool.effect == "read" and tool.origin is None):
        return tool
    recorded = RepliesByPlace(store.open_run(ref, data_home()))

    async def look_up(arguments: Json) -> str:
        at_place = recorded.find(tool_request(ToolCall("", tool.name, arguments)))
        found = None if at_place is None else at_place.reply
        if found is None or "content" not in found:
            raise ToolError(f"the replayed run holds no result of {tool.name} with {arguments!r:.200}")
        if found["is_error"]:
            raise ToolError(str(found["content"]).removeprefix("Error: "))
        return str(found["content"])

    return replace(tool, function=look_up, validate=lambda arguments: {"arguments": arguments}, repair=dict,
                   max_chars=sys.maxsize)  # fmt: skip
