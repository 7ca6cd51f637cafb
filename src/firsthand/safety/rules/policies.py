"""Policies: functions of a CallCase that allow, rewrite, ask or deny. Composed, the strictest counts, deny first.

A policy returns a Ruling, or None where it has nothing to say. One that raises denies the call.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from firsthand.errors import unknown
from firsthand.safety.rules.case import CallCase, spread

Action = Literal["allow", "rewrite", "ask", "deny"]
_ORDER: tuple[Action, ...] = ("allow", "rewrite", "ask", "deny")


@dataclass(frozen=True)
class Ruling:
    """A policy's decision, and why."""

    action: Action
    rule: str
    reason: str = ""
    arguments: Mapping[str, Any] | None = None
    """Of a rewrite: the arguments to call with."""


Policy = Callable[[CallCase], Ruling | None]


def declared(case: CallCase) -> Ruling | None:
    """Denies a tool that declares nothing: its powers are not known."""
    if case.tool.declares is None:
        return Ruling("deny", "declared", f"{case.tool.name} does not declare its authority, so it is not called")
    return None


def plan_lock(case: CallCase) -> Ruling | None:
    """Asks about a tool outside of the plan, which was fixed before anything was read."""
    plan = case.bounds.plan
    if plan is not None and case.tool.name not in plan:
        return Ruling(
            "ask", "plan_lock", f"{case.tool.name} is not in the plan ({', '.join(sorted(plan)) or 'no tool'})"
        )
    return None


def authority_from_trusted(case: CallCase) -> Ruling | None:
    """Asks about a power that neither the user's words nor a trusted field name; denies one that could mislead a person."""
    alone = [each for each in case.powers if not each.source]
    if bad := next((each for each in alone if each.problem), None):
        return Ruling("deny", "authority_from_trusted", f"{bad.argument} is {bad.value!r:.80}: {bad.problem}")
    if alone:
        named = ", ".join(f"{each.argument} = {each.value!r:.80}" for each in alone[:4])
        return Ruling("ask", "authority_from_trusted", f"{named} is neither in the user's words nor in a trusted field")
    return None


def readers_cover_recipients(case: CallCase) -> Ruling | None:
    """Asks before a copy of a private result goes to somebody whom the user did not name."""
    others = [each.value for each in case.recipients if each.source not in ("user", "default")]
    if case.labels is not None and others and not case.content.may_be_read_by(others):
        sources = ", ".join(sorted(case.content.origins))
        return Ruling(
            "ask", "readers_cover_recipients", f"{', '.join(others[:4])} would read what comes from {sources}"
        )
    if (
        case.labels is None
        and others
        and (
            source := next((e.name for e in case.earlier if e.label.readers is not None and case.copied(e.result)), "")
        )
    ):
        return Ruling(
            "ask", "readers_cover_recipients", f"{', '.join(others[:4])} would read what {source} gave the user alone"
        )
    return None


def rule_of_two(case: CallCase) -> Ruling | None:
    """Asks before a change in a session that has read both untrusted and private data (Meta, 2025)."""
    if case.changes and not case.session.is_trusted and case.session.readers is not None:
        return Ruling(
            "ask", "rule_of_two", "the session has read untrusted and private data, and this call changes something"
        )
    return None


def untrusted_session(case: CallCase) -> Ruling | None:
    """Asks before every call that changes or tells something once the session has read what anybody could have written."""
    if (case.changes or case.declares.recipients) and not case.session.is_trusted:
        return Ruling("ask", "untrusted_session", "the session has read what anybody could have written")
    return None


def path_inside(case: CallCase) -> Ruling | None:
    """Denies a path that may leave the folder, however it is written."""
    for text in spread(case.arguments, case.declares.paths):
        plain = unicodedata.normalize("NFKC", unquote(unquote(text))).replace("\\", "/")
        if plain.startswith(("/", "~")) or ".." in plain.split("/") or "\0" in plain or re.match(r"\w+:", plain):
            return Ruling("deny", "path_inside", f"{text!r:.80} may lead out of the folder")
    return None


def budget(case: CallCase) -> Ruling | None:
    """Denies a call beyond the most calls or writes of an attempt, or beyond the tool's rate."""
    made = [each for each in case.earlier if each.name == case.tool.name and not each.failed]
    changed = [each for each in case.earlier if each.effect != "read" and not each.failed]
    limits = [(case.declares.rate, len(made)), (case.bounds.calls, len(case.earlier))]
    limits += [(case.bounds.writes, len(changed))] if case.changes else []
    if spent := next((most for most, used in limits if most is not None and used >= most), None):
        return Ruling("deny", "budget", f"{case.tool.name} would go beyond {spent} calls")
    return None


def no_new_permissions(case: CallCase) -> Ruling | None:
    """Asks before somebody is given a permission, unless the plan foresaw it."""
    if case.declares.grants and case.tool.name not in (case.bounds.plan or ()):
        return Ruling("ask", "no_new_permissions", f"{case.tool.name} gives a permission that outlives the task")
    return None


def once_only(case: CallCase) -> Ruling | None:
    """Denies an effect outside of the attempt that was had before with equal arguments."""
    if case.tool.effect in ("external", "irreversible") and any(
        e for e in case.earlier if not e.failed and case.repeats(e)
    ):
        return Ruling("deny", "once_only", f"{case.tool.name} was called with these arguments before")
    return None


def dry_run_first(case: CallCase) -> Ruling | None:
    """Asks before an irreversible call, and denies one of which there is no dry run to show."""
    if case.tool.effect != "irreversible":
        return None
    if case.declares.dry_run is None:
        return Ruling("deny", "dry_run_first", f"{case.tool.name} cannot be undone, and it declares no dry run to show")
    return Ruling("ask", "dry_run_first", f"{case.tool.name} cannot be undone")


def visible_text(case: CallCase) -> Ruling | None:
    """Rewrites texts that hold characters nobody sees, which smuggle data out (tag characters, direction marks)."""
    shown = _visible(case.arguments)
    return (
        None if shown == case.arguments else Ruling("rewrite", "visible_text", "hidden characters are left out", shown)
    )


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return (
            "".join(c for c in value if unicodedata.category(c) not in ("Cf", "Co") or c == "\u200d")
            if not value.isascii()
            else value
        )
    if isinstance(value, dict):
        return {key: _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list) else value


POLICIES: dict[str, Policy] = {
    each.__name__: each
    for each in (
        declared,
        plan_lock,
        authority_from_trusted,
        readers_cover_recipients,
        rule_of_two,
        untrusted_session,
        path_inside,
        budget,
        no_new_permissions,
        once_only,
        dry_run_first,
        visible_text,
    )
}
"""All policies, by name."""


def policies_named(names: Iterable[str]) -> tuple[Policy, ...]:
    """The policies of these names; UnknownName for any other."""
    for name in names:
        if name not in POLICIES:
            raise unknown("policy", name, POLICIES, see="docs/guard.md")
    return tuple(POLICIES[name] for name in names)


def rulings(case: CallCase, policies: Iterable[Policy]) -> list[Ruling]:
    """The decision of each policy. One that raises denies."""
    found = []
    for policy in policies:
        name = getattr(policy, "__name__", type(policy).__name__)
        try:
            ruling = policy(case)
            if ruling is not None and (not isinstance(ruling, Ruling) or ruling.action not in _ORDER):
                raise TypeError(f"it returned {ruling!r:.80}, and a Ruling was expected")
        except Exception as error:
            ruling = Ruling("deny", name, f"the policy failed: {type(error).__name__}: {error}"[:300])
        found += [ruling] if ruling is not None else []
    return found


def compose(found: Iterable[Ruling]) -> Ruling:
    """The strictest ruling: deny before ask before rewrite before allow, the first of equals."""
    strictest = Ruling("allow", "policy")
    for ruling in found:
        if _ORDER.index(ruling.action) > _ORDER.index(strictest.action):
            strictest = ruling
    return strictest
