"""The threat model of an agent, from what its tools declare and which rules guard it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from firsthand.agent import Agent, pattern_name
from firsthand.loop.approval import Approval
from firsthand.safety.policy import CallPolicy
from firsthand.safety.undoable import Undoable
from firsthand.tool import Tool

Standing = Literal["stopped by construction", "statistical", "not stopped"]


@dataclass(frozen=True)
class Threat:
    """An attack or failure, and what this agent has against it."""

    attack: str
    standing: Standing
    because: str
    open_tools: tuple[str, ...] = ()
    """Tools to which it does not apply."""


def threat_model(agent: Agent, tools: Sequence[Tool] | None = None) -> list[Threat]:
    """The threats to an agent with these tools, its own unless given, the stopped ones first."""
    guard = next((each for each in agent.guards if isinstance(each, CallPolicy)), None)
    undoes = any(isinstance(each, Undoable) for each in agent.guards)
    given = tuple(agent.own_tools if tools is None else tools)
    facts = _Facts(guard, given, "plan_mode" in pattern_name(agent.pattern), agent.approval)
    found = [
        facts.undeclared(),
        facts.unplanned(),
        facts.foreign_power(),
        facts.leak(),
        facts.escape(),
        facts.permission(),
        facts.irreversible(),
        facts.repeated(),
        facts.mass(),
        facts.mistaken(undoes),
        facts.trusted_value(),
        *facts.approved_by_model(),
        *_NEVER,
    ]
    order: tuple[Standing, ...] = ("stopped by construction", "statistical", "not stopped")
    return sorted(found, key=lambda threat: order.index(threat.standing))


_NEVER = (
    Threat("the user's own call, to the same place, with poisoned content (an amount, a summary, advice)", "not stopped",
           "content is the model's; only a person who reads the question sees it"),
    Threat("a text that changes the answer alone, without any call", "not stopped",
           "no call is made that a guard could decide on"),
    Threat("the user is the attacker, or says yes to everything", "not stopped",
           "the user's words and answers are the authority; questions are counted so that fatigue shows"),
)  # fmt: skip


def _tells_unseen(tool: Tool) -> bool:
    """True if a call may carry text to somebody whom no declaration names: a change, or a question to the public."""
    facts = tool.declares
    if facts is None or facts.recipients or facts.tells:
        return facts is None and tool.effect != "read"
    free = set(tool.spec.parameters["properties"]).difference(facts.powers)
    return tool.effect != "read" or (tool.origin is not None and facts.readers == "public" and bool(free))


@dataclass(frozen=True)
class _Facts:
    guard: CallPolicy | None
    given: tuple[Tool, ...]
    plans: bool
    """True in plan mode."""
    approval: Approval

    def has(self, rule: str) -> bool:
        return self.guard is not None and rule in self.guard.rules

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that the guard lets be called: without those that it refuses because they declare nothing."""
        return tuple(tool for tool in self.given if tool.declares is not None or not self.has("declared"))

    def undeclared(self) -> Threat:
        bare = tuple(tool.name for tool in self.given if tool.declares is None)
        attack = "a call of a tool whose powers are not known"
        if self.has("declared"):
            refused = (
                f"refused, since it declares nothing: {', '.join(bare)}" if bare else "every tool declares its facts"
            )
            return Threat(attack, "stopped by construction", refused)
        return Threat(attack, "not stopped", "no rule `declared`", bare)

    def unplanned(self) -> Threat:
        attack = "a text that was read has a tool called that the task does not need"
        if self.plans:
            return Threat(attack, "stopped by construction", "plan_mode fixes the calls before anything is read")
        if not self.has("plan_lock") or self.guard is None:
            return Threat(attack, "not stopped", "no rule `plan_lock`")
        if self.guard.plan == ("model",):
            return Threat(
                attack, "statistical", "the model says from the user's words which tools are needed, and may err"
            )
        if self.guard.plan:
            return Threat(attack, "stopped by construction", f"only {', '.join(self.guard.plan)} may be called")
        return Threat(
            attack, "not stopped", "no plan is given: policy:plan=TOOL+TOOL or policy:plan=model, or plan_mode"
        )

    def foreign_power(self) -> Threat:
        attack = "a recipient, address, path or id that neither the user nor a trusted field named"
        acting = [tool for tool in self.tools if tool.effect != "read" or (tool.declares and tool.declares.powers)]
        bare = tuple(tool.name for tool in acting if tool.declares is None or not tool.declares.powers)
        if not self.has("authority_from_trusted"):
            return Threat(
                attack, "not stopped", "no rule `authority_from_trusted`", tuple(tool.name for tool in acting)
            )
        how = "labels are carried exactly" if self.plans else "each such argument needs a witness"
        return Threat(attack, "stopped by construction", how, bare)

    def leak(self) -> Threat:
        attack = "private data goes to somebody whom the user did not name"
        private = [tool.name for tool in self.tools if tool.declares is None or tool.declares.readers == "user"]
        telling = tuple(tool.name for tool in self.tools if _tells_unseen(tool))
        if not private:
            return Threat(attack, "stopped by construction", "no tool gives private data")
        if not self.has("readers_cover_recipients"):
            return Threat(attack, "not stopped", "no rule `readers_cover_recipients`")
        if self.plans:
            return Threat(attack, "stopped by construction", "readers are carried with every value", telling)
        return Threat(
            attack,
            "statistical",
            "copies of four words or a code are found; a paraphrase or an encoding is not",
            telling,
        )

    def escape(self) -> Threat:
        attack = "a path that leads out of the folder"
        paths = [tool.name for tool in self.tools if tool.declares is not None and tool.declares.paths]
        if self.has("path_inside") or not paths:
            return Threat(
                attack,
                "stopped by construction",
                f"checked for {', '.join(paths)}" if paths else "no tool takes a path",
            )
        return Threat(attack, "not stopped", "no rule `path_inside`; a tool may check by itself", tuple(paths))

    def permission(self) -> Threat:
        attack = "a permission is given to somebody in the middle of a task"
        grants = tuple(tool.name for tool in self.tools if tool.declares is not None and tool.declares.grants)
        if self.has("no_new_permissions") or not grants:
            return Threat(
                attack, "stopped by construction", f"{', '.join(grants)} asked about" if grants else "no tool gives one"
            )
        return Threat(attack, "not stopped", "no rule `no_new_permissions`", grants)

    def irreversible(self) -> Threat:
        attack = "something that cannot be undone, without a yes"
        final = [tool for tool in self.tools if tool.effect == "irreversible"]
        free = tuple(tool.name for tool in final if self.approval.verdict(tool) == "allow")
        if not final or not free or self.has("dry_run_first"):
            how = "asked about, with a dry run" if self.has("dry_run_first") else "asked about"
            blind = [tool.name for tool in final if tool.declares is None or tool.declares.dry_run is None]
            if blind and self.has("dry_run_first"):
                how = f"refused, since it declares no dry run: {', '.join(blind)}"
                how += "; all others are asked about" if len(blind) < len(final) else ""
            return Threat(
                attack, "stopped by construction", how if final else "no tool that may be called is irreversible"
            )
        return Threat(attack, "not stopped", "the approval rules allow them", free)

    def repeated(self) -> Threat:
        attack = "an effect that is had twice, after a crash or by branches that race"
        if self.has("once_only"):
            return Threat(
                attack, "stopped by construction", "equal external calls run once; the journal holds what was done"
            )
        return Threat(attack, "statistical", "a resumed attempt repeats nothing; two equal calls both run")

    def mass(self) -> Threat:
        attack = "changes, mail or spending without end"
        free = tuple(tool.name for tool in self.tools if tool.effect != "read" and not self._is_bounded(tool))
        limited = self.guard is not None and (self.guard.calls is not None or self.guard.writes is not None)
        if self.has("budget") and (limited or not free):
            return Threat(attack, "stopped by construction", "calls, writes or rates are bounded")
        return Threat(attack, "not stopped", "no rate is declared: policy:writes=N bounds all changes", free)

    def _is_bounded(self, tool: Tool) -> bool:
        facts, guard = tool.declares, self.guard
        if facts is None or guard is None:
            return facts is not None and facts.rate is not None
        spends, tells = guard.spend is not None and facts.spends, guard.recipients is not None and facts.recipients
        return bool(facts.rate or spends or tells)

    def approved_by_model(self) -> tuple[Threat, ...]:
        if self.guard is None or "model" not in self.guard.approvers:
            return ()
        attack = "a question that the model answers with yes although the user would not"
        last = "it" if self.guard.approvers[-1] == "model" else "a person is asked only where it is not sure; it"
        return (Threat(attack, "statistical", f"{last} reads the user's words and the call alone, and may err"),)

    def mistaken(self, undoes: bool) -> Threat:
        attack = "a wrong act, whoever caused it"
        acting = [tool for tool in self.tools if tool.effect != "read"]
        final = tuple(tool.name for tool in acting if tool.declares is None or tool.declares.undo is None)
        if not acting:
            return Threat(attack, "stopped by construction", "no tool changes anything")
        if undoes and not final:
            return Threat(attack, "stopped by construction", "every act can be taken back: firsthand rollback")
        if undoes and len(final) < len(acting):
            return Threat(attack, "statistical", "what declares an undo can be taken back", final)
        because = "no tool declares an undo" if undoes else "nothing is recorded to take it back: --guard undoable"
        return Threat(attack, "not stopped", because, final)

    def trusted_value(self) -> Threat:
        attack = "an attacker names a thing that a trusted field names too (another mail's id, another contact)"
        if self.has("untrusted_session"):
            return Threat(
                attack, "stopped by construction", "every change is asked about once something untrusted was read"
            )
        trusting = tuple(tool.name for tool in self.tools if tool.declares is not None and tool.declares.trusts)
        if self.has("authority_from_trusted") and not trusting:
            return Threat(attack, "stopped by construction", "no field of a result is trusted")
        return Threat(
            attack, "not stopped", "such a value has a witness; the rule `untrusted_session` would ask", trusting
        )
