"""Policies: functions of a CallCase that allow, rewrite, ask or deny. Composed, the strictest counts, deny first.

A policy returns a Ruling, or None where it has nothing to say. One that raises denies the call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import unquote

from firsthand.errors import unknown
from firsthand.message import Json
from firsthand.safety.rules.case import CallCase, unknown_amounts, uses
from firsthand.safety.rules.visible_text import visible
from firsthand.safety.rules.witness import texts_at
from firsthand.system.normalised_text import normalised_text

Action = Literal["allow", "rewrite", "ask", "deny"]
_ORDER: tuple[Action, ...] = ("allow", "rewrite", "ask", "deny")


@dataclass(frozen=True)
class Ruling:
    """A policy's decision, and why."""

    action: Action
    rule: str = ""
    """The policy's name, which `rulings` fills in."""
    reason: str = ""
    arguments: Mapping[str, Any] | None = None
    """Of a rewrite: the arguments to call with."""


Policy = Callable[[CallCase], Ruling | None]


def ask(reason: str) -> Ruling:
    """A question to whoever approves the call."""
    return Ruling("ask", reason=reason)


def deny(reason: str) -> Ruling:
    """A refusal."""
    return Ruling("deny", reason=reason)


def declared(case: CallCase) -> Ruling | None:
    """Denies a tool that declares nothing: its powers are not known."""
    known = case.tool.declares is not None
    return None if known else deny(f"{case.tool.name} does not declare its authority, so it is not called")


def plan_lock(case: CallCase) -> Ruling | None:
    """Asks about a tool outside of the plan, which was fixed before anything was read."""
    plan = case.bounds.plan
    if plan is not None and case.tool.name not in plan:
        return ask(f"{case.tool.name} is not in the plan ({', '.join(sorted(plan)) or 'no tool'})")
    return None


def authority_from_trusted(case: CallCase) -> Ruling | None:
    """Asks about a power that neither the user's words nor a trusted field name; denies one that could mislead a person."""
    alone = [each for each in case.powers if not each.source]
    if bad := next((each for each in alone if each.problem), None):
        return deny(f"{bad.argument} is {bad.value!r:.80}: {bad.problem}")
    named = ", ".join(f"{each.argument} = {each.value!r:.80}" for each in alone[:4])
    return ask(f"{named} is neither in the user's words nor in a trusted field") if alone else None


def readers_cover_recipients(case: CallCase) -> Ruling | None:
    """Asks before a copy of a private result goes to somebody whom the user did not name."""
    others = [each.value for each in case.recipients if each.source not in ("user", "default")]
    if others and (source := case.tells_of(others)):
        return ask(f"{', '.join(others[:4])} would read what {source} gave the user alone")
    reader = case.unnamed_reader
    if reader and (source := case.tells_of([reader], reader=reader)):
        return ask(f"{reader} would read what {source} gave the user alone")
    return None


def rule_of_two(case: CallCase) -> Ruling | None:
    """Asks before a change in a session that has read both untrusted and private data (Meta, 2025)."""
    if case.changes and not case.session.is_trusted and case.session.readers is not None:
        return ask("the session has read untrusted and private data, and this call changes something")
    return None


def untrusted_session(case: CallCase) -> Ruling | None:
    """Asks before every call that changes or tells something once the session has read what anybody could have written."""
    acts = case.changes or bool(case.declares.recipients)
    return ask("the session has read what anybody could have written") if acts and not case.session.is_trusted else None


def path_inside(case: CallCase) -> Ruling | None:
    """Denies a path that may leave the folder, however it is written."""
    for text in texts_at(case.whole, case.declares.paths):
        plain = normalised_text("NFKC", unquote(unquote(text))).replace("\\", "/")
        if plain.startswith(("/", "~")) or ".." in plain.split("/") or "\0" in plain or re.match(r"\w+:", plain):
            return deny(f"{text!r:.80} may lead out of the folder")
    return None


def budget(case: CallCase) -> Ruling | None:
    """Denies a call beyond the most calls, changes, spending or recipients of an attempt, or beyond the tool's rate."""
    if case.bounds.spend is not None and (left_out := unknown_amounts(case)):
        return deny(
            f"{case.tool.name} is called without {', '.join(left_out)}, and what it then spends is not known: give it"
        )
    for bound, used, most in uses(case):
        if not used <= most:  # a sum that holds no amount is NaN, which is within no bound
            return deny(f"{case.tool.name} would go beyond {bound}")
    return None


def no_new_permissions(case: CallCase) -> Ruling | None:
    """Asks before somebody is given a permission, unless the plan foresaw it."""
    new = case.declares.grants and case.tool.name not in (case.bounds.plan or ())
    return ask(f"{case.tool.name} gives a permission that outlives the task") if new else None


def once_only(case: CallCase) -> Ruling | None:
    """Denies an effect outside of the attempt that was had before with equal arguments."""
    again = case.lasts and any(case.repeats(each) for each in case.earlier if each.made)
    return deny(f"{case.tool.name} was called with these arguments before") if again else None


def dry_run_first(case: CallCase) -> Ruling | None:
    """Asks before an irreversible call, and denies one of which there is no dry run to show."""
    if case.tool.effect != "irreversible":
        return None
    if case.declares.dry_run is None:
        return deny(f"{case.tool.name} cannot be undone, and it declares no dry run to show")
    return ask(f"{case.tool.name} cannot be undone")


def visible_text(case: CallCase) -> Ruling | None:
    """Rewrites texts and names that hold characters nobody sees, which smuggle data out: see `visible_text.py`."""
    try:
        shown = _visible(case.arguments)
    except KeyError as same:
        return deny(f"two names are {same.args[0]!r:.80} without hidden characters")
    return (
        None if shown == case.arguments else Ruling("rewrite", reason="hidden characters are left out", arguments=shown)
    )


def _visible(value: Any) -> Any:
    """The value without hidden characters; KeyError if two names of an object would become one."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        found: Json = {}
        for key, each in value.items():
            if (name := visible(key)) in found:
                raise KeyError(name)
            found[name] = _visible(each)
        return found
    return [_visible(each) for each in value] if isinstance(value, list) else value


_ALL = (
    declared, plan_lock, authority_from_trusted, readers_cover_recipients, rule_of_two, untrusted_session, path_inside,
    budget, no_new_permissions, once_only, dry_run_first, visible_text,
)  # fmt: skip
POLICIES: dict[str, Policy] = {each.__name__: each for each in _ALL}
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
            ruling = deny(f"the policy failed: {type(error).__name__}: {error}"[:300])
        found += [replace(ruling, rule=ruling.rule or name)] if ruling is not None else []
    return found


def compose(found: Iterable[Ruling]) -> Ruling:
    """The strictest ruling: deny before ask before rewrite before allow, the first of equals."""
    return max((Ruling("allow", "policy"), *found), key=lambda each: _ORDER.index(each.action))
