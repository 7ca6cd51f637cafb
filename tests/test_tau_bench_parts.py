"""The parts of tau-bench's protocol: tasks, worlds, rewards and options, on one small domain."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import names, refused
from firsthand.benchmarks.protocols import tau_bench
from firsthand.errors import ConfigError
from firsthand.message import system
from firsthand.task import Task
from firsthand.trace import Call, Event, Trace
from firsthand.worlds.tau.customers import ModelCustomer, RuleCustomer
from firsthand.worlds.tau.retail_desk import RetailDesk
from firsthand.worlds.tau.tau_tasks import TauTask


def ended(answer: str | None = None, task: str = "t", **state: Any) -> Trace:
    return Trace("t", "b", task, {"name": "a"}, 0, 0, "", 0.0, answer=answer, final_state=state)


ANN = {
    "name": {"first_name": "Ann", "last_name": "Lee"},
    "address": {"zip": "10001"},
    "email": "ann@example.com",
    "payment_methods": {"card_1": {"source": "credit_card", "id": "card_1"}},
    "orders": ["#W1"],
    "reservations": ["R1"],
}
ORDER = {
    "order_id": "#W1",
    "user_id": "ann_1",
    "items": [{"name": "Lamp", "product_id": "p1", "item_id": "i1", "price": 20.0, "options": {}}],
    "status": "pending",
    "payment_history": [{"transaction_type": "payment", "amount": 20.0, "payment_method_id": "card_1"}],
    "address": {},
}
TABLES: Any = {"users": {"ann_1": ANN}, "orders": {"#W1": ORDER}, "products": {}}
CANCEL = ("cancel_pending_order", {"order_id": "#W1", "reason": "no longer needed"})
WISHES = [
    TauTask("ann_1", "You are Ann. You want your lamp back.", (CANCEL,), ("20.00",)),
    TauTask("bob_2", "You ask for a price.", (("get_order_details", {"order_id": "#W1"}),), ("20.00", "Lamp")),
    TauTask("bob_2", "You want nothing.", (), ()),
]


def test_a_customers_wish_becomes_a_task_with_the_changes_of_its_own_calls() -> None:
    desk = RetailDesk(TABLES)
    asyncio.run(desk.call(*CANCEL))
    changes = desk.ledger.changes()
    assert changes["orders"]["#W1"]["status"] == "cancelled"
    made = [tau_bench._task("retail", TABLES, "Policy.", WISHES, "gpt", at) for at in range(3)]
    assert made[0] == Task(
        "retail-000",
        "A customer is here: greet the customer.",
        conversation=(system("Policy."),),
        metadata={"cluster": "ann_1", "wanted": "change"},
        secret={
            "user_id": "ann_1",
            "instruction": "You are Ann. You want your lamp back.",
            "actions": [["cancel_pending_order", {"order_id": "#W1", "reason": "no longer needed"}]],
            "outputs": ["20.00"],
            "changes": changes,
        },
    )
    assert [(each.id, each.metadata["wanted"]) for each in made[1:]] == [
        ("retail-001", "answer"),
        ("retail-002", "nothing"),
    ]
    assert made[1].secret["changes"] == made[2].secret["changes"] == {} and ORDER["status"] == "pending"
    scripted = tau_bench._task("retail", TABLES, "", WISHES, "script", 0)
    assert scripted.prompt == f"The customer writes: {tau_bench.first_person(WISHES[0].instruction)}"


def test_the_world_of_a_wish_knows_its_customer_and_what_the_customer_owns() -> None:
    known, unknown = (tau_bench._task("retail", TABLES, "", WISHES, "script", at) for at in (0, 1))
    world = tau_bench._world("retail", TABLES, "script", known)
    assert isinstance(world.customer, RuleCustomer) and isinstance(world.desk, RetailDesk) and world._greeted
    facts = {"user id": "ann_1", "email": "ann@example.com", "name": "Ann Lee", "zip": "10001"}
    assert (world.customer.profile, world.customer.instruction) == (facts, WISHES[0].instruction)
    assert world._actions == [CANCEL] and world._outputs == ["20.00"]
    owned = {"0": "#W1", "1": "R1", "2": "card_1"}
    assert world._profile == {"user_id": "ann_1", "email": "ann@example.com", "zip": "10001", **owned}
    stranger = tau_bench._world("retail", TABLES, "script", unknown)
    assert stranger._profile == {"user_id": "bob_2", "email": "", "zip": ""}
    assert stranger.customer.profile == {"user id": "bob_2", "email": "", "name": "", "zip": ""}  # type: ignore[attr-defined]
    modelled = tau_bench._world("retail", TABLES, "scripted:echo", known)
    assert isinstance(modelled.customer, ModelCustomer) and not modelled._greeted
    assert WISHES[0].instruction in modelled.customer._messages[0].text


def test_tau_rewards_the_tasks_changes_and_what_must_be_said() -> None:
    task = tau_bench._task("retail", TABLES, "", WISHES, "script", 1)
    changes = {"orders": {"#W1": {"paid": 0.3, "flag": True, "items": [1]}}}
    task.secret["changes"] = changes  # type: ignore[index]
    same = {"orders": {"#W1": {"flag": True, "paid": 0.1 + 0.2, "items": [1.0]}}}

    def scores(**result: Any) -> list[float]:
        trace = ended(result=result)
        scorers = (tau_bench.tau_reward, tau_bench.database_matches, tau_bench.outputs_said)
        return [scorer(task, trace).value for scorer in scorers]

    said = ["The LAMP", "cost 2,0.00 crowns"]
    assert scores(changes=same, said=said) == [1, 1, 1]
    assert scores(changes=same, said=said[:1]) == [0, 1, 0]
    assert scores(changes={}, said=said) == [0, 0, 1] and scores() == [0, 0, 0]
    for wrong in ({"paid": 0.300002}, {"flag": 1.0}, {"items": [1, 1]}):
        near = {"orders": {"#W1": {**changes["orders"]["#W1"], **wrong}}}
        assert scores(changes=near, said=said) == [0, 0, 1]
    reward = tau_bench.tau_reward(task, ended(result={"changes": same, "said": []}))
    assert (reward.name, reward.detail["database"], reward.detail["outputs"]) == ("reward", True, False)
    assert tau_bench._rounded((-0.0000001, 20, False, "1")) == [0.0, 20.0, False, "1"]
    assert str(tau_bench._rounded(-0.0000001)) == "0.0"


@pytest.mark.parametrize(
    ("end", "stop_reason", "events", "reward"),
    [
        ("customer stopped", "done", (), 1),
        ("transferred", "tokens", (), 1),
        ("stopped", "done", (), 1),
        ("looped", "done", (), 1),
        ("rounds", "done", (), 0),
        ("turns", "done", (), 0),
        ("stopped", "calls", (), 0),
        ("stopped", "seconds", (), 0),
        ("stopped", "done", ("max_steps",), 0),
        ("customer stopped", "done", ("max_steps",), 1),
    ],
)
def test_tau_rewards_no_conversation_that_a_limit_ended(
    end: str, stop_reason: str, events: tuple[str, ...], reward: int
) -> None:
    task = tau_bench._task("retail", TABLES, "", WISHES, "script", 1)
    said = list(task.secret["outputs"])
    trace = ended(ended=end, result={"changes": task.secret["changes"], "said": said})
    trace = replace(trace, stop_reason=stop_reason, events=tuple(Event(kind, 0.0, {}) for kind in events))
    score = tau_bench.tau_reward(task, trace)
    assert (score.value, score.detail["finished"]) == (reward, bool(reward))
    assert tau_bench.database_matches(task, trace).value == tau_bench.outputs_said(task, trace).value == 1


@pytest.mark.parametrize(("last_s", "reward"), [(0.5, 0), (1.0, 0), (1.5, 1)])
def test_tau_rewards_a_conversation_that_goes_on_after_steps_ran_out_and_ends(last_s: float, reward: int) -> None:
    task = tau_bench._task("retail", TABLES, "", WISHES, "script", 1)
    trace = ended(ended="stopped", result={"changes": task.secret["changes"], "said": list(task.secret["outputs"])})
    calls = tuple(
        Call(f"{at}", kind, 0, at, 0.1, "") for at, kind in ((0.1, "tool"), (last_s, "tool"), (2.0, "generate"))
    )
    trace = replace(
        trace, stop_reason="done", events=(Event("max_steps", 1.0, {}), Event("approval", 3.0, {})), calls=calls
    )
    assert tau_bench.tau_reward(task, trace).value == reward


def test_a_domain_of_tau_bench_is_read_with_its_policy_and_tools(tmp_path: Path) -> None:
    data = tmp_path / "retail" / "data"
    data.mkdir(parents=True)
    for name, rows in TABLES.items():
        (data / f"{name}.json").write_text(json.dumps(rows))
    (tmp_path / "retail" / "wiki.md").write_text("Be kind.")
    source = "tasks = [Task(user_id='ann_1', instruction='You want it.', actions=[], outputs=['x'])]\n"
    (tmp_path / "retail" / "tasks_dev.py").write_text(source.replace("tasks =", "TASKS_DEV ="))
    made = tau_bench.tau_benchmark("retail", str(tmp_path), "dev", "script", 7, "text")
    assert (made.name, made.licence) == ("tau_retail", "MIT")
    assert names(made) == ("tau_reward", "database_matches", "outputs_said")
    assert made.options == {"split": "dev", "user": "script", "rounds": 7, "actions": "text"}
    assert made.protocol == (
        "tau-bench's dev tasks; customer: rules; 7 rounds; the database's changes and what must be said, before any limit; "
        "text actions"
    )
    (task,) = made.tasks(0)
    policy = task.conversation[0].text
    assert policy.startswith(f"Be kind.{tau_bench.FORM}") and "\ncancel_pending_order(order_id, reason): " in policy
    assert made.environment is not None
    environment: Any = made.environment(task)
    assert (environment.limit, environment.actions) == (7, "text")
    spoken = tau_bench.tau_benchmark("retail", str(tmp_path), "dev", "scripted:echo", 1, "native")
    assert spoken.tasks(0)[0].conversation[0].text == f"Be kind.{tau_bench.SPOKEN}"
    assert "customer: scripted:echo, until 3 equal exchanges; 1 round;" in spoken.protocol
    assert spoken.protocol.endswith("native actions")
    make = tau_bench.tau_benchmark
    said = "split is 'dev': airline has test"
    assert refused(ConfigError, make, "airline", str(tmp_path), "dev", "script", 1, "text") == said
    said = "user is '' and actions 'text': give script or a model, and text or native"
    assert refused(ConfigError, make, "retail", str(tmp_path), "dev", "", 1, "text") == said
    said = "user is 'u' and actions 'both': give script or a model, and text or native"
    assert refused(ConfigError, make, "retail", str(tmp_path), "dev", "u", 1, "both") == said
