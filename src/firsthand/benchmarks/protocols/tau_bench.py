"""The protocol of tau-bench's two domains: policy in the system message, a simulated customer, changes compared.

An attempt is right if it changed the database as the task's own calls do, and said all that the task wants said, as in
tau-bench, and came to an end: one that a limit cut off earns nothing there either. Amounts are compared to a millionth of
a dollar, so that the order of additions does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from functools import cache, partial
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError
from firsthand.message import canonical, system
from firsthand.system.given_data import held
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.tool import tool_from_function
from firsthand.trace import Score, Trace
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.tau.airline_desk import AirlineDesk
from firsthand.worlds.tau.customers import REPEATS, Customer, ModelCustomer, RuleCustomer, first_person
from firsthand.worlds.tau.ledger import Tables
from firsthand.worlds.tau.retail_desk import RetailDesk
from firsthand.worlds.tau.service_desk import ServiceDesk
from firsthand.worlds.tau.service_world import ServiceWorld
from firsthand.worlds.tau.tau_tasks import TauTask, domain_folder, read_policy, read_tables, read_tasks
from firsthand.worlds.world import Actions, WorldEnvironment

DESKS: dict[str, type[ServiceDesk]] = {"retail": RetailDesk, "airline": AirlineDesk}
SPLITS = {"retail": ("test", "dev"), "airline": ("test",)}
FORM = """

To use a tool write one JSON object, {"name": NAME, "arguments": {...}}, and nothing else. All other text is said to the
customer.
The tools are:
"""
SPOKEN = "\n\nSpeak to the customer by the tool respond."


def tau_benchmark(domain: str, data: str, split: str, user: str, rounds: int, actions: Actions) -> Benchmark:
    """Return the benchmark of a domain, from tau-bench's files in `data` or `$FIRSTHAND_DATA`."""
    if split not in SPLITS[domain]:
        raise ConfigError(f"split is {split!r}: {domain} has {' and '.join(SPLITS[domain])}")
    if not user or actions not in ("text", "native"):
        raise ConfigError(f"user is {user!r} and actions {actions!r}: give script or a model, and text or native")
    folder = domain_folder(Path(data or os.environ.get("FIRSTHAND_DATA") or ".").expanduser(), domain)
    found = read_tasks(held(folder / f"tasks_{split}.py", folder))
    tables, policy = read_tables(folder, domain), read_policy(folder)
    how = FORM + "\n".join(_signatures(DESKS[domain](tables))) if actions == "text" else SPOKEN
    how_played = "rules" if user == "script" else f"{user}, until {REPEATS} equal exchanges"
    made = partial(_task, domain, tables, policy + how, found, user)
    return Benchmark(
        name=f"tau_{domain}",
        tasks=lambda seed: LazyTasks(range(len(found)), made),
        scorers=(tau_reward, database_matches, outputs_said),
        description=f"Customer service by tools under a policy, with a simulated customer (tau-bench, {domain}).",
        protocol=f"tau-bench's {split} tasks; customer: {how_played}; "
        f"{count_of(rounds, 'round')}; the database's changes and what must be said, before any limit; {actions} actions",
        licence="MIT",
        environment=lambda task: WorldEnvironment(_world(domain, tables, user, task), rounds=rounds, actions=actions),
        options={"split": split, "user": user, "rounds": rounds, "actions": actions},
    )


def tau_reward(task: Task, trace: Trace) -> Score:
    """Score 1 if the conversation ended, the database has the task's changes and no others, and all outputs were said."""
    right = {"database": _matches(task, trace), "outputs": _said(task, trace), "finished": _is_finished(trace)}
    return world_score("reward", float(all(right.values())), trace, **right)


def database_matches(task: Task, trace: Trace) -> Score:
    """Score 1 if the database has the task's changes and no others."""
    return Score("database", float(_matches(task, trace)))


def outputs_said(task: Task, trace: Trace) -> Score:
    """Score 1 if all that the task wants said was said to the customer."""
    return Score("outputs", float(_said(task, trace)))


def _is_finished(trace: Trace) -> bool:
    """False where a limit ended it: rounds, turns, steps, tokens, calls or seconds. An agent may leave before the customer
    does, and where both only repeat themselves nobody has more to say.

    Steps that ran out before the last call, as in an earlier trial, ended nothing.
    """
    ended = trace.final_state.get("ended")
    if ended == "stopped":
        last_s = max((call.started_s for call in trace.calls if call.kind == "tool"), default=0.0)
        ran_out = any(event.kind == "max_steps" and event.at_s >= last_s for event in trace.events)
        return trace.stop_reason == "done" and not ran_out
    return ended not in ("rounds", "turns")


def _matches(task: Task, trace: Trace) -> bool:
    changes = world_result(trace).get("changes")
    return changes is not None and canonical(_rounded(changes)) == canonical(_rounded(task.secret["changes"]))


def _said(task: Task, trace: Trace) -> bool:
    said = [text.lower().replace(",", "") for text in world_result(trace).get("said", [])]
    return all(any(output.lower() in text for text in said) for output in task.secret["outputs"])


def _rounded(value: Any) -> Any:
    """The value with its numbers rounded to a millionth, 20 and 20.0 alike."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:  # a larger one stays exact
        return float(value)
    return round(value, 6) + 0.0 if isinstance(value, float) else value


def _task(domain: str, tables: Tables, policy: str, found: list[TauTask], user: str, index: int) -> Task:
    each = found[index]
    desk = DESKS[domain](tables)
    for name, arguments in each.actions:
        _settled(desk.call(name, arguments))
    changes = desk.ledger.changes()
    wanted = "change" if changes else "answer" if each.outputs else "nothing"
    asked = "A customer is here: greet the customer."
    if user == "script":
        asked = f"The customer writes: {first_person(each.instruction)}"
    return Task(
        f"{domain}-{index:03d}",
        asked,
        conversation=(system(policy),),
        metadata={"cluster": each.user_id, "wanted": wanted},
        secret={
            "user_id": each.user_id,
            "instruction": each.instruction,
            "actions": [[name, arguments] for name, arguments in each.actions],
            "outputs": list(each.outputs),
            "changes": changes,
        },
    )


def _signatures(desk: ServiceDesk) -> list[str]:
    """A line for each tool: name, arguments, and what it does."""
    specs = [tool_from_function(each, effect="write").spec for each in desk.functions]
    return [f"{spec.name}({', '.join(spec.parameters.get('properties', {}))}): {spec.description}" for spec in specs]


def _world(domain: str, tables: Tables, user: str, task: Task) -> ServiceWorld:
    secret = task.secret
    record = tables["users"].get(secret["user_id"], {})
    name = record.get("name", {})
    profile = {
        "user id": secret["user_id"],
        "email": record.get("email", ""),
        "name": f"{name.get('first_name', '')} {name.get('last_name', '')}".strip(),
        "zip": record.get("address", {}).get("zip", ""),
    }
    customer: Customer
    if user == "script":
        customer = RuleCustomer(secret["instruction"], profile)
    else:
        customer = ModelCustomer(secret["instruction"], _customer_model(user))
    owned = [*record.get("orders", []), *record.get("reservations", []), *record.get("payment_methods", {})]
    known = {"user_id": secret["user_id"], "email": profile["email"], "zip": profile["zip"]}
    return ServiceWorld(
        DESKS[domain](tables),
        customer,
        greeted=user == "script",
        actions=[(name, arguments) for name, arguments in secret["actions"]],
        outputs=secret["outputs"],
        profile={**known, **{str(index): each for index, each in enumerate(owned)}},
    )


@cache
def _customer_model(name: str) -> Any:
    """The model that plays customers, opened once."""
    return catalog.model(name)


def _settled(call: Coroutine[Any, Any, str]) -> str:
    """The result of a tool that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as done:
        return str(done.value)
    raise AssertionError("a tool of a service desk waits for nothing")
