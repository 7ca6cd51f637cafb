"""Decides on tool calls by what tools declare: witnesses of authority, readers, plans, budgets. It asks no model to judge.

`--guard policy` applies the default rules, `--guard policy:rules=plan_lock+authority_from_trusted` those named. Each call is
one event in the trace: the verdict, its rule, and the witness of each argument that decides where power goes. A question
goes to whoever approves the agent's calls, with these origins and a dry run; no answer in time is a no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from firsthand.declaration import Rehearsal
from firsthand.errors import ConfigError, ToolError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.calling import expect_effect
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json, canonical
from firsthand.safety.approvers import ApprovalQuestion, answer_of_model, ask_in_turn, check_approvers
from firsthand.safety.plans.labelled import carried
from firsthand.safety.rules.case import (
    CallCase,
    PolicyBounds,
    compared,
    earlier_calls,
    spending,
    told_to,
    words_of,
)
from firsthand.safety.rules.policies import POLICIES, Policy, Ruling, compose, policies_named
from firsthand.safety.rules.rewritten_call import rewritten
from firsthand.safety.undo.staging import is_committing
from firsthand.tool import Tool, as_text
from firsthand.tool_arguments import as_json_data

DEFAULT = tuple(name for name in POLICIES if name not in ("rule_of_two", "untrusted_session"))
"""All but these two, which ask about most tasks that read anything (docs/guard.md)."""
MAX_DRY_RUN = 2_000


@dataclass(frozen=True)
class CallPolicy:
    """The guard."""

    name = "policy"
    rules: tuple[str, ...] = DEFAULT
    plan: tuple[str, ...] = ()
    """The tools that may be called. `model`: the model says, from the user's words alone, if a tool is needed. Empty: the
    plan in the task's metadata, if there is one."""
    calls: int | None = None
    writes: int | None = None
    spend: float | None = None
    """The most that the tools which declare `spends` may spend in one attempt."""
    recipients: int | None = None
    """The most people that one attempt may tell something."""
    approvers: tuple[str, ...] = ("person",)
    """Those who are asked, in turn: `model`, `person`."""
    questions: int | None = None
    """The most questions of one attempt: any further one is a no, so that nobody is worn down."""
    ask_s: float = 600.0
    """Seconds that each approver has to answer."""
    policies: tuple[Policy, ...] = field(default=(), repr=False)
    """Further policies of your own."""

    def __post_init__(self) -> None:
        if not self.ask_s > 0:
            raise ConfigError(f"ask_s is {self.ask_s}: give the seconds to wait for an answer, above 0")
        if self.spend is not None and not 0 <= self.spend < inf:
            raise ConfigError(f"spend is {self.spend}: give the most that may be spent, 0 or more")
        policies_named(self.rules)
        check_approvers(self.approvers)

    async def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        """The verdict on a call."""
        try:
            checked = tool.validate(arguments)
        except ToolError:
            return GuardVerdict.passed(self.name, "the arguments are not those of the tool, which will refuse them")
        bounds = PolicyBounds(await self._plan(view, tool), self.calls, self.writes, self.spend, self.recipients)
        given = CallCase(tool, as_json_data(checked), words_of(view), earlier_calls(view), bounds, carried())
        sent = is_committing()  # counted and compared when it was staged
        named = [each for each in self.rules if not (sent and each in ("budget", "once_only"))]
        case, found = rewritten(given, (*policies_named(named), *self.policies))
        ruling = compose(found)
        detail = _detail(case, found)
        if ruling.action == "deny":
            return GuardVerdict.blocked(ruling.rule, ruling.reason, detail)
        final = _same_or(case.arguments, arguments)
        if ruling.action == "ask" and (refusal := await self._ask(view, case, final, found, detail)):
            return GuardVerdict.blocked(ruling.rule, refusal, detail)
        if spent := await self._claim(view, case):
            return GuardVerdict.blocked(spent.rule, spent.reason, detail)
        if final != arguments:
            reason = ruling.reason or "the arguments as the tool reads them"
            return GuardVerdict.replaced(ruling.rule, final, reason, detail)
        return GuardVerdict.passed(ruling.rule, f"{ruling.action}: {ruling.reason or _origins(case)}", detail)

    async def _plan(self, view: AttemptView, tool: Tool) -> frozenset[str] | None:
        if self.plan == ("model",) and "plan_lock" in self.rules:
            return frozenset({tool.name}) if await _needed(view, tool) else frozenset()
        given = self.plan or view.task.metadata.get("plan")
        return frozenset(given) if isinstance(given, list | tuple) else None

    async def _ask(self, view: AttemptView, case: CallCase, arguments: Json, found: list[Ruling], detail: Json) -> str:
        """The reason why the call is refused, empty if it was approved; adds the record of the question to `detail`."""
        asked = [each for each in found if each.action == "ask"]
        about, rehearsed = explanation(case, asked), await rehearsal(case)
        if self.questions is not None and not await view.claim("questions", self.questions):
            return f"{asked[0].reason}; {self.questions} questions were asked, and no more are"
        question = ApprovalQuestion(view, case.tool, arguments, about, rehearsed)
        decision = await ask_in_turn(question, self.approvers, self.ask_s)
        if rehearsed and decision.by != "nobody":
            # What was shown, so that a resumed attempt records no second rehearsal in its place.
            shown = {"rehearsal": case.tool.name, "arguments": arguments}
            kept = await view.once(shown, lambda: _kept(rehearsed))
            rehearsed = Rehearsal(str(kept["text"]), str(kept.get("effect", "")))
        if decision.allowed is True and rehearsed.effect:
            expect_effect(rehearsed.effect)
        reasons = "; ".join([*(each.reason for each in asked), decision.reason or "it was not approved"])
        detail |= {"asked": f"{about}\n{rehearsed}".strip(), "by": decision.by, "allowed": decision.allowed}
        return "" if decision.allowed is True else reasons

    async def _claim(self, view: AttemptView, case: CallCase) -> Ruling | None:
        """Takes what the call needs of limited permissions, so that branches that run at once cannot both have the last."""
        tool = case.tool
        if "budget" in self.rules and not is_committing():
            wanted: list[tuple[str, float | None, float, str]] = [(f"rate of {tool.name}", case.declares.rate, 1, "")]
            wanted += [("tool calls", self.calls, 1, "")] + [("changes", self.writes, 1, "")] * case.changes
            wanted += [("spending", self.spend, spending(case), "")] * (spending(case) != 0)
            wanted += [("recipients", self.recipients, 1, each) for each in sorted(told_to(case))]
            for key, most, amount, item in wanted:
                if most is not None and not await view.claim(key, most, amount, item):
                    return Ruling("deny", "budget", f"the {key} of this attempt are used up ({most:g})")
        if "once_only" in self.rules and case.lasts:
            failed = sum(not each.made and each.name == tool.name for each in case.earlier)
            if not await view.claim(f"{tool.name} {compared(case.whole, case.declares)} {failed}", 1):
                return Ruling("deny", "once_only", f"{tool.name} is being called with these arguments already")
        return None


def policy(
    *,
    rules: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    plan: tuple[str, ...] = (),
    calls: int | None = None,
    writes: int | None = None,
    spend: float | None = None,
    recipients: int | None = None,
    approvers: tuple[str, ...] = ("person",),
    questions: int | None = None,
    ask_s: float = 600.0,
) -> CallPolicy:
    """A guard of tool calls by `rules` `without` some, the default ones unless given; see docs/guard.md."""
    named = _split(rules) or DEFAULT
    policies_named(_split(without))
    kept = tuple(name for name in named if name not in _split(without))
    return CallPolicy(kept, _split(plan), calls, writes, spend, recipients, _split(approvers), questions, ask_s)


def _split(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for text in texts for word in text.split("+") if word)


def _same_or(judged: Mapping[str, Any], given: Json) -> Json:
    """The given arguments if they say what was judged, which may hold defaults besides; else what was judged."""
    said = {name: judged[name] for name in given if name in judged}
    return given if canonical(said) == canonical(given) else dict(judged)


def _detail(case: CallCase, found: list[Ruling]) -> Json:
    origins = {f"{each.argument}={each.value}"[:200]: each.source or None for each in case.powers}
    said: Json = {"rulings": [[each.rule, each.action] for each in found]} if found else {}
    return {"origins": origins, "session": case.session.to_json(), **said}


def _origins(case: CallCase) -> str:
    named = "; ".join(f"{each.argument} from {each.source}" for each in case.powers[:8])
    return named or "no argument decides where power goes"


def explanation(case: CallCase, asked: list[Ruling]) -> str:
    """The text of a question: why it is asked, and the origin of each power."""
    lines = [f"{each.reason} (rule {each.rule})" for each in asked]
    for each in case.powers:
        origin = f"from {each.source}" if each.source else case.found_in(each.value) or "its origin is not known"
        lines.append(f"{each.argument} = {each.value!r:.120}: {origin}")
    return "\n".join(lines)


async def rehearsal(case: CallCase) -> Rehearsal:
    """The dry run of the arguments that the tool will get, in words; empty for a tool without one."""
    if (dry_run := case.declares.dry_run) is None:
        return Rehearsal("")
    try:
        shown = await in_thread(lambda: dry_run(dict(case.arguments)))
        return Rehearsal(f"dry run: {as_text(shown, MAX_DRY_RUN)}", getattr(shown, "effect", ""))
    except Exception as error:
        return Rehearsal(f"dry run: it failed ({type(error).__name__}: {error})"[:300])


async def _kept(rehearsed: Rehearsal) -> Json:
    return {"text": str(rehearsed)} | ({"effect": rehearsed.effect} if rehearsed.effect else {})


async def _needed(view: AttemptView, tool: Tool) -> bool:
    """The model's answer, from the user's words and the tool's description alone, on the need for a tool."""
    need = f"Tool: {tool.name}: {tool.spec.description}\n\nDoes the request need this tool? Answer yes or no."
    return (await answer_of_model(view, need)).startswith("yes")
