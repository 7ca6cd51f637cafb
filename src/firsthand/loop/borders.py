"""Applies an agent's guards at the borders of an attempt, in order, and records each verdict as an event.

Each guard sees the value as the one before it left it; the first that blocks ends the chain. A call that a later guard
changed is judged again by those before it, so that each has seen what the tool gets. A verdict that replaces, blocks
or gives a reason is an event of kind `guard`: border, rule, action, reason, effect, and the original unless the task is
protected or the value is a passage. Silent passes are counted, and stand in one event `guard_passes` at the attempt's end.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from firsthand.errors import ConfigError, FirsthandError, GuardBlocked, GuardRefused, ToolError
from firsthand.guard import AttemptView, Border, GuardVerdict, guard_name, marks_results, watches
from firsthand.loop.approval import Decision, approval_key, decision_of, explained
from firsthand.loop.attempt import Attempt, cost_of
from firsthand.loop.budget import Budget
from firsthand.loop.call_cost import CallCost
from firsthand.loop.concurrency import derive_seed, had_ended
from firsthand.loop.listener import Began
from firsthand.loop.prompt_size import ESTIMATED, estimated_usage, prompt_size
from firsthand.loop.request_key import request_key
from firsthand.message import Json, Message, Text, ToolResult, canonical
from firsthand.model import Completion, Model, Prompt, Sampling
from firsthand.tool import Tool
from firsthand.trace import Call

_TYPES: dict[Border, type] = {"call": dict, "result": ToolResult, "answer": str}


MAX_ROUNDS = 5
"""The most times that the guards see one call, after which it is refused."""


@dataclass(frozen=True)
class Sent:
    """A prompt as the model gets it."""

    prompt: Prompt
    detail: Json
    """For the Call: `prompt`, a text; or `messages`, where a guard replaced some; see `Trace.sent`."""


@dataclass(frozen=True)
class Borders:
    """The agent's guards at one effect of an attempt."""

    attempt: Attempt
    effect: str
    node: int | None
    budget: Budget
    """Pays for what guards ask."""
    depth: int = 0
    as_of: str = ""
    """The effect before which the calls that guards see had ended; empty for this one."""
    keeps_original: bool = True
    """False: what a guard withholds or replaces is in no event."""

    async def prompt(self, prompt: str | None) -> Sent:
        """The conversation, or the text `prompt`, as it may be sent. GuardBlocked if it may not."""
        messages = self.attempt.conversation(self.node)
        text = {} if prompt is None else {"prompt": prompt}
        if not self.attempt.agent.guards:
            return Sent(messages if prompt is None else prompt, text)
        if prompt is not None:
            messages = (Message("user", (Text(prompt),)),)
        passed: tuple[Message, ...] = await self._cross("prompt", messages)
        if prompt is not None:
            if len(passed) != 1:
                raise ConfigError(f"a guard replaced a text prompt by {len(passed)} messages: replace it by one")
            return Sent(passed[0].text, {"prompt": passed[0].text})
        return Sent(passed, {} if passed == messages else {"messages": self._by_node(passed)})

    async def call(self, tool: Tool, arguments: Json) -> Json:
        """The arguments to call a tool with, as the tool reads them. ToolError if it may not be called."""
        passed: Json = await self._cross("call", _as_read(tool, arguments), tool)
        if watches(self.attempt.agent.guards, "call"):
            told = {"name": tool.name, "arguments": copy.deepcopy(passed)}
            self.attempt.tell(Began(self.effect, "tool", self.node, told))
        return passed

    async def result(self, tool: Tool, result: ToolResult) -> ToolResult:
        """The result as the model may read it. ToolError if it may not."""
        passed: ToolResult = await self._cross("result", result, tool)
        return passed

    async def answer(self, answer: str) -> str:
        """The attempt's answer. GuardBlocked if it may not be given."""
        passed: str = await self._cross("answer", answer)
        return passed

    async def _cross(self, border: Border, value: Any, *about: Tool) -> Any:
        """The value as the guards leave it. A guard that did not see a call as a later one left it judges it again."""
        if border != "call":
            return await self._in_turn(border, value, about, {}, 0)
        passed: dict[int, str] = {}
        for number in range(MAX_ROUNDS):
            value = await self._in_turn(border, value, about, passed, number)
            if {canonical(value)}.issuperset(passed.values()):
                return value
        text = f"{about[0].name} was not run: its guards change the arguments again and again, each the other's"
        raise GuardRefused(text, text)

    async def _in_turn(
        self,
        border: Border,
        value: Any,
        about: tuple[Tool, ...],
        passed: dict[int, str],
        number: int,
    ) -> Any:
        """The value past each guard once, but for those that let exactly this call pass: `passed`, by their place.

        Guards that only mark results for the model come last, and keep the text that they marked.
        """
        guards = list(enumerate(self.attempt.agent.guards))
        if border == "result":
            guards.sort(key=lambda each: marks_results(each[1]))
        for index, guard in guards:
            method = getattr(guard, border, None)
            if method is None or (border == "call" and passed.get(index) == canonical(value)):
                continue
            view = _View(self, f"{self.effect} guard {index} {border}", number).made()
            shown = copy.deepcopy(value) if border == "call" else value
            decided = method(view, *about, shown)
            verdict = await decided if inspect.isawaitable(decided) else decided
            name = guard_name(guard)
            if not isinstance(verdict, GuardVerdict):
                raise ConfigError(f"the guard {name} returned {verdict!r:.80} at {border}: a GuardVerdict was expected")
            if verdict.action == "pass":
                if verdict.reason:
                    self._note(border, name, verdict, about)
                else:
                    self.attempt.guard_passes[f"{verdict.rule} {border}"] += 1
            else:
                if verdict.action == "replace":
                    verdict = _checked(border, name, verdict)
                self._note(border, name, verdict, about, original=self._original(border, value, verdict))
                if verdict.action == "block":
                    raise _refusal(border, about, verdict)
                before, value = value, verdict.value
                if border == "call" and isinstance(value, dict):
                    value = _as_read(about[0], value)
                if border == "result" and marks_results(guard):
                    value = replace(value, plain=before.content if before.plain is None else before.plain)
            if border == "call":
                passed[index] = canonical(value)
        return value

    def _note(self, border: Border, name: str, verdict: GuardVerdict, about: tuple[Tool, ...], **original: Any) -> None:
        task = self.attempt.task
        if task is not None and task.protected is not None:
            original = {}
        elif not self.keeps_original:
            original = {"detail": verdict.detail} if verdict.detail else {}
        elif verdict.detail:
            original["detail"] = verdict.detail
        if about:
            original["tool"] = about[0].name
        self.attempt.note("guard", guard=name, border=border, rule=verdict.rule, action=verdict.action,
                          reason=verdict.reason, effect=self.effect, at=self.node, **original)  # fmt: skip

    def _original(self, border: Border, value: Any, verdict: GuardVerdict) -> Any:
        """The value before a verdict, as JSON; of a prompt only the messages that did not pass."""
        if border == "prompt":
            kept = tuple(verdict.value) if verdict.action == "replace" else ()
            same = [each for each in value if any(each is other or each == other for other in kept)]
            return self._by_node(tuple(each for each in value if not any(each is other for other in same)))
        return value.content if isinstance(value, ToolResult) else value

    def _by_node(self, messages: tuple[Message, ...]) -> list[int | Json]:
        """For each message the index of its node, or the message itself where no node of the conversation holds it."""
        nodes = self.attempt.nodes
        at = {id(nodes[index].message): index for index in self.attempt.path(self.node)}
        return [at[id(message)] if id(message) in at else message.to_json() for message in messages]


def _checked(border: Border, name: str, verdict: GuardVerdict) -> GuardVerdict:
    """A verdict whose replacement the border takes, messages as a tuple. ConfigError naming the guard for any other."""
    value = verdict.value
    if border == "prompt":
        value = tuple(value) if isinstance(value, Iterable) else None
        is_taken = value is not None and all(isinstance(each, Message) for each in value)
    else:
        is_taken = isinstance(value, _TYPES[border])
    if not is_taken:
        raise ConfigError(
            f"the guard {name} replaced {border} by {verdict.value!r:.80}: see docs/guards.md for its type"
        )
    return replace(verdict, value=value)


class _View:
    """Makes the view of one guard at one border, with effects of its own in the attempt's journal."""

    def __init__(self, borders: Borders, effect: str, number: int = 0):
        self.borders = borders
        self.place = effect
        """The guard's place, the same in each round in which it sees a call."""
        self.effect = f"{effect} again {number}" if number else effect
        self.count = 0
        self.claimed: Counter[str] = Counter()

    def made(self) -> AttemptView:
        borders, attempt = self.borders, self.borders.attempt
        assert attempt.task is not None
        return AttemptView(
            attempt.task.public(),
            attempt.agent.name,
            borders.node,
            attempt.conversation(borders.node),
            tuple(sorted(self.calls(), key=lambda call: attempt.order[call.id])),
            tuple(attempt.tools[name] for name in sorted(attempt.tools)),
            self.ask,
            self.once,
            self.approve,
            self.claim,
        )

    def calls(self) -> list[Call]:
        as_of = self.borders.as_of or self.borders.effect
        return [call for call in self.borders.attempt.calls if had_ended(call.id, as_of)]

    def next_effect(self) -> str:
        self.count += 1
        return f"{self.effect} {self.count - 1}"

    async def once(self, request: Json, action: Callable[[], Awaitable[Json]]) -> Json:
        attempt, effect = self.borders.attempt, self.next_effect()
        key = request_key("guard", canonical(request))
        recorded, count = attempt.journal.find(effect, key), self.count
        if recorded is None:
            recorded = {"guarded": await action()}
            self.count = (
                count  # what the action asked has numbers of its own, which a resumed attempt does not give out
            )
            await attempt.keep(effect, key, recorded)
        found: Json = recorded["guarded"]
        return found

    async def approve(self, tool: Tool, arguments: Json, about: str) -> Decision:
        attempt = self.borders.attempt
        effect, request = approval_key(self.borders.effect, tool, arguments)
        _, shown = approval_key(self.borders.effect, tool, arguments, about)  # a yes is to the reason that was shown
        if (recorded := attempt.journal.find(effect, shown)) is not None:
            return Decision(**recorded)
        with explained(about):
            decision = await decision_of(attempt.agent.approval.ask, tool, arguments)
        if decision.by == "nobody":
            return decision
        kept = decision.kept(tool)
        await attempt.keep(effect, shown, kept)
        await attempt.keep(effect, request, kept)
        return Decision(**kept)

    async def claim(self, key: str, most: float, amount: float = 1, item: str = "") -> bool:
        attempt, effect = self.borders.attempt, self.next_effect()
        asked: list[Any] = [key, most] if (amount, item) == (1, "") else [key, most, amount, item]
        request = request_key("claim", canonical(asked))
        self.claimed[key] += 1
        at = f"{self.place} {self.claimed[key]}"
        if attempt.claims is None:
            attempt.claims = {}
            for each in attempt.journal.replies():
                if "claim" in each and each["granted"]:
                    _take(attempt.claims, each)
        if (recorded := attempt.journal.find(effect, request)) is not None:
            return bool(recorded["granted"])
        reply: Json = {"claim": key, "granted": False, "amount": amount, "item": item, "at": at}
        after = copy.deepcopy({key: attempt.claims.get(key, {})})
        _take(after, reply)
        reply["granted"] = 0 < amount < inf and sum(after[key].values()) <= most
        if reply["granted"]:  # taken before the first await, so that no other branch comes in between
            _take(attempt.claims, reply)
        await attempt.keep(effect, request, reply)
        return bool(reply["granted"])

    async def ask(self, prompt: Prompt, model: Model | None, sampling: Sampling) -> Completion:
        borders, attempt, effect = self.borders, self.borders.attempt, self.next_effect()
        asked, started_s = model or attempt.agent.model, attempt.elapsed_s()
        if sampling.seed is None:
            sampling = replace(sampling, seed=derive_seed(attempt.seed, effect))
        request = request_key(asked.fingerprint, prompt, sampling, (), 1)
        recorded = attempt.journal.find(effect, request)
        cost = CallCost(borders.budget)
        if recorded is None:
            size = await prompt_size(asked, prompt) if borders.budget.counts_tokens else 0
            wanted = size + sampling.max_tokens
            cost = CallCost(borders.budget, borders.budget.reserve(wanted, borders.depth, least=wanted), size)
        error = "it was broken off before it had an answer"
        detail: Json = {"model": asked.name}

        async def answer() -> Json:
            made, mark = await asked.complete(prompt, sampling), {}
            if borders.budget.counts_tokens and not any(each.usage.total_tokens for each in made):
                made, mark = estimated_usage(made, cost.prompt_tokens), {ESTIMATED: True}
            reply = {"completions": [each.to_json() for each in made]} | mark
            cost.answer = cost_of(reply)  # paid, also if the reply cannot be kept
            return reply

        try:
            reply = await attempt.reply(effect, request, answer, recorded, cost, asked)
            (completion,) = (Completion.from_json(each) for each in reply["completions"])
            error = ""
            detail["answer"] = completion.message.text
            detail |= {ESTIMATED: True} if reply.get(ESTIMATED) else {}
        finally:
            cost.settle()
            attempt.record("guard", effect, borders.node, started_s, request, usage=cost.usage, detail=detail,
                           error=error or None, replayed=recorded is not None)  # fmt: skip
        return completion


def _as_read(tool: Tool, arguments: Json) -> Json:
    """The arguments as the tool reads them; those that it will refuse as they are."""
    try:
        return tool.read(arguments)
    except ToolError:
        return arguments


def _take(claims: dict[str, dict[str, float]], reply: Json) -> None:
    """Adds a granted claim: an item once, an amount in the place of what the guard claimed for this call before."""
    held, amount = claims.setdefault(reply["claim"], {}), reply.get("amount", 1)
    kept = reply.get("item") or reply.get("at", "")
    held[kept] = amount if kept else held.get("", 0) + amount


def _refusal(border: Border, about: tuple[Tool, ...], verdict: GuardVerdict) -> FirsthandError:
    """The error of a blocked value. The model reads the reason for a call or a result; a client never does."""
    head = f"the {border} was blocked"
    if about:
        name = about[0].name
        head = f"{name} was not run" if border == "call" else f"the result of {name} was withheld"
    text = f"{head}: {verdict.reason or 'no reason was given'} (rule {verdict.rule})"
    return GuardRefused(text, f"{head}: a guard blocked it (rule {verdict.rule})") if about else GuardBlocked(text)
