"""tau-bench: tools and their refusals, the ledger, customers by rules and by a model, scoring, and the real tasks."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.tau_airline import tau_airline
from firsthand.benchmarks.tau_retail import tau_retail
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.trace import Trace
from firsthand.worlds.players import play
from firsthand.worlds.tau.airline_desk import AirlineDesk
from firsthand.worlds.tau.customers import STOP, first_person
from firsthand.worlds.tau.ledger import RecordLedger
from firsthand.worlds.tau.retail_desk import RetailDesk
from firsthand.worlds.tau.service_desk import ServiceDesk
from firsthand.worlds.tau.tau_tasks import read_tasks

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (SHARED / "agents" / "tau_bench").is_dir(), reason="tau-bench's data are not here")


def person(**more: object) -> dict[str, object]:
    return {
        "name": {"first_name": "Ann", "last_name": "Lee"},
        "address": {"zip": "10001", "city": "New York"},
        "email": "ann@example.com",
        "payment_methods": {
            "gift_card_1": {"source": "gift_card", "id": "gift_card_1", "balance": 50.0, "amount": 100},
            "credit_card_1": {"source": "credit_card", "id": "credit_card_1"},
            "certificate_1": {"source": "certificate", "id": "certificate_1", "amount": 80},
        },
        **more,
    }


def order(number: str, status: str, paid_by: str = "credit_card_1") -> dict[str, object]:
    item = {"name": "Lamp", "product_id": "p1", "item_id": "i1", "price": 20.0, "options": {"color": "red"}}
    paid = [{"transaction_type": "payment", "amount": 20.0, "payment_method_id": paid_by}]
    return {
        "order_id": number,
        "user_id": "ann",
        "items": [item],
        "status": status,
        "payment_history": paid,
        "address": {},
    }


def variant(price: float, available: bool = True) -> dict[str, object]:
    return {"price": price, "available": available, "options": {"color": "blue"}}


RETAIL = {
    "users": {"ann": person(orders=["#W1", "#W2", "#W3"])},
    "orders": {
        "#W1": order("#W1", "pending"),
        "#W2": order("#W2", "delivered"),
        "#W3": order("#W3", "pending", "gift_card_1"),
    },
    "products": {
        "p1": {
            "name": "Lamp",
            "product_id": "p1",
            "variants": {"i1": variant(20.0), "i2": variant(90.25), "i3": variant(5, False), "i4": variant(12.5)},
        }
    },
}


def flight(origin: str, end: str, leaves: str, lands: str, **days: str) -> dict[str, object]:
    offer = {"available_seats": {"economy": 2, "business": 1}, "prices": {"economy": 100, "business": 300}}
    dates = {
        f"2024-05-{day[1:]}": {"status": status, **(offer if status == "available" else {})}
        for day, status in days.items()
    }
    times = {"scheduled_departure_time_est": leaves, "scheduled_arrival_time_est": lands}
    return {"origin": origin, "destination": end, **times, "dates": dates}


AIRLINE = {
    "users": {"ann": person(reservations=["R1"])},
    "flights": {
        "F1": flight("JFK", "SEA", "08:00:00", "11:00:00", d20="available", d21="delayed"),
        "F2": flight("JFK", "ORD", "08:00:00", "10:00:00", d20="available"),
        "F3": flight("ORD", "SEA", "12:00:00", "15:00:00", d20="available"),
        "F4": flight("ORD", "SEA", "09:00:00", "12:00:00", d20="available"),
        "F5": flight("JFK", "ORD", "20:00:00", "01:00:00+1", d20="available"),
    },
    "reservations": {
        "R1": {
            "reservation_id": "R1", "user_id": "ann", "cabin": "economy", "nonfree_baggages": 1, "total_baggages": 2,
            "flights": [{"flight_number": "F1", "date": "2024-05-20", "price": 70, "origin": "JFK", "destination": "SEA"}],
            "passengers": [{"first_name": "A", "last_name": "L", "dob": "1990-01-01"}] * 2,
            "payment_history": [{"payment_id": "credit_card_1", "amount": 140}],
        }
    },
}  # fmt: skip


def called(desk: ServiceDesk, name: str, **arguments: object) -> str:
    return asyncio.run(desk.call(name, arguments))


def test_a_ledger_copies_on_writing_and_tells_only_what_differs():
    ledger = RecordLedger(RETAIL)  # type: ignore[arg-type]
    ledger.edit("orders", "#W1")["status"] = "cancelled"
    ledger.edit("orders", "#W2")["status"] = "delivered"
    ledger.add("orders", "#W9", {"status": "new"})
    assert set(ledger.changes()["orders"]) == {"#W1", "#W9"} and set(ledger.changes()) == {"orders"}
    assert RETAIL["orders"]["#W1"]["status"] == "pending"
    assert [key for key, _ in ledger.rows("orders")] == ["#W1", "#W2", "#W3", "#W9"]
    assert dict(ledger.rows("orders"))["#W1"]["status"] == "cancelled"


def test_a_cancelled_order_refunds_a_gift_card_and_only_a_pending_one_is_cancelled():
    desk = RetailDesk(RETAIL)  # type: ignore[arg-type]
    assert called(desk, "cancel_pending_order", order_id="#W2", reason="no longer needed").startswith(
        "Error: non-pending"
    )
    assert called(desk, "cancel_pending_order", order_id="#W3", reason="too dear") == "Error: invalid reason"
    assert desk.ledger.changes() == {}
    done = json.loads(called(desk, "cancel_pending_order", order_id="#W3", reason="ordered by mistake"))
    assert done["status"] == "cancelled" and [p["transaction_type"] for p in done["payment_history"]] == [
        "payment",
        "refund",
    ]
    changes = desk.ledger.changes()
    assert changes["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 70.0


def test_items_are_changed_for_the_difference_and_not_beyond_a_gift_card():
    desk = RetailDesk(RETAIL)  # type: ignore[arg-type]
    change = {"order_id": "#W1", "item_ids": ["i1"], "payment_method_id": "gift_card_1"}
    for new, said in ((["i2"], "insufficient gift card"), (["i3"], "not found or available"), ([], "should match")):
        assert said in called(desk, "modify_pending_order_items", new_item_ids=new, **change)
    twice = called(
        desk, "modify_pending_order_items", **{**change, "item_ids": ["i1", "i1"]}, new_item_ids=["i2", "i2"]
    )
    assert twice == "Error: i1 not found" and desk.ledger.changes() == {}
    done = json.loads(called(desk, "modify_pending_order_items", new_item_ids=["i4"], **change))
    assert done["status"] == "pending (item modified)" and done["items"][0]["price"] == 12.5
    assert done["payment_history"][-1] == {
        "transaction_type": "refund",
        "amount": 7.5,
        "payment_method_id": "gift_card_1",
    }
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 57.5
    assert "non-pending" in called(desk, "modify_pending_order_items", new_item_ids=["i4"], **change)


def test_payments_move_returns_go_back_and_exchanges_are_written_down():
    desk = RetailDesk(RETAIL)  # type: ignore[arg-type]
    pay = {"order_id": "#W3", "payment_method_id": "gift_card_1"}
    assert "different from the current" in called(desk, "modify_pending_order_payment", **pay)
    done = json.loads(called(desk, "modify_pending_order_payment", **{**pay, "payment_method_id": "credit_card_1"}))
    assert [p["payment_method_id"] for p in done["payment_history"]] == ["gift_card_1", "credit_card_1", "gift_card_1"]
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["balance"] == 70.0
    give = {"order_id": "#W2", "item_ids": ["i1"]}
    assert "original payment method or a gift card" in called(
        desk, "return_delivered_order_items", payment_method_id="certificate_1", **give
    )
    swapped = {**give, "new_item_ids": ["i2"], "payment_method_id": "credit_card_1"}
    done = json.loads(called(desk, "exchange_delivered_order_items", **swapped))
    assert done["exchange_price_difference"] == 70.25 and done["status"] == "exchange requested"
    assert "non-delivered" in called(desk, "return_delivered_order_items", payment_method_id="gift_card_1", **give)


def test_people_are_found_whatever_the_case_and_wrong_arguments_are_told():
    desk = RetailDesk(RETAIL)  # type: ignore[arg-type]
    assert called(desk, "find_user_id_by_name_zip", first_name="ANN", last_name="lee", zip="10001") == "ann"
    assert called(desk, "find_user_id_by_email", email="Ann@Example.com") == "ann"
    assert (
        called(desk, "find_user_id_by_name_zip", first_name="Ann", last_name="Lee", zip="1") == "Error: user not found"
    )
    assert "do not fit find_user_id_by_email" in called(desk, "find_user_id_by_email", email=3)
    assert "do not fit get_order_details" in called(desk, "get_order_details", number="#W1")
    assert called(desk, "drop_tables") == "Error: unknown action drop_tables"
    assert called(desk, "calculate", expression="(1 + 2.5) * 4") == "14.0"
    assert called(desk, "calculate", expression="__import__('os')").startswith("Error: ")


def test_a_booking_costs_fares_bags_and_insurance_and_uses_up_a_certificate():
    desk = AirlineDesk(AIRLINE)  # type: ignore[arg-type]
    people = [{"first_name": "A", "last_name": "L", "dob": "1990-01-01"}] * 2
    booking: dict[str, object] = {
        "user_id": "ann", "origin": "JFK", "destination": "SEA", "flight_type": "one_way", "cabin": "economy",
        "flights": [{"flight_number": "F1", "date": "2024-05-20"}], "passengers": people, "total_baggages": 3,
        "nonfree_baggages": 1, "insurance": "yes",
        "payment_methods": [{"payment_id": "certificate_1", "amount": 80}, {"payment_id": "credit_card_1", "amount": 230}],
    }  # fmt: skip
    for change, said in [
        ({"payment_methods": [{"payment_id": "credit_card_1", "amount": 309}]}, "total price is 310, but paid 309"),
        ({"payment_methods": [{"payment_id": "certificate_1", "amount": 81}]}, "not enough balance"),
        ({"cabin": "business"}, "not enough seats on flight F1"),
        ({"flights": [{"flight_number": "F1", "date": "2024-05-21"}]}, "not available on date"),
        ({"flights": [{"flight_number": "F9", "date": "2024-05-21"}]}, "flight F9 not found"),
    ]:
        assert said in called(desk, "book_reservation", **{**booking, **change})
    assert desk.ledger.changes() == {}
    assert json.loads(called(desk, "book_reservation", **booking))["reservation_id"] == "HATHAT"
    changes = desk.ledger.changes()
    assert "certificate_1" not in changes["users"]["ann"]["payment_methods"]
    assert changes["users"]["ann"]["reservations"] == ["R1", "HATHAT"]
    assert changes["reservations"]["HATHAT"]["flights"][0]["price"] == 100
    again = {**booking, "payment_methods": [{"payment_id": "credit_card_1", "amount": 310}]}
    assert json.loads(called(desk, "book_reservation", **again))["reservation_id"] == "HATHAU"


def test_flights_that_stay_keep_their_price_and_the_difference_is_charged():
    desk = AirlineDesk(AIRLINE)  # type: ignore[arg-type]
    same = {
        "reservation_id": "R1",
        "flights": [{"flight_number": "F1", "date": "2024-05-20"}],
        "payment_id": "gift_card_1",
    }
    done = json.loads(called(desk, "update_reservation_flights", cabin="economy", **same))
    assert done["flights"][0]["price"] == 70 and desk.ledger.changes() == {}
    other = {**same, "flights": [{"flight_number": "F2", "date": "2024-05-20"}]}
    assert "certificate cannot" in called(
        desk, "update_reservation_flights", cabin="economy", **{**other, "payment_id": "certificate_1"}
    )
    done = json.loads(called(desk, "update_reservation_flights", cabin="economy", **other))
    assert done["payment_history"][-1] == {"payment_id": "gift_card_1", "amount": 60}
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["amount"] == 40
    bags = {"reservation_id": "R1", "total_baggages": 3, "nonfree_baggages": 2, "payment_id": "gift_card_1"}
    assert "balance is not enough" in called(desk, "update_reservation_baggages", **bags)
    bags["payment_id"] = "credit_card_1"
    assert json.loads(called(desk, "update_reservation_baggages", **bags))["payment_history"][-1]["amount"] == 50
    assert "number of passengers" in called(desk, "update_reservation_passengers", reservation_id="R1", passengers=[])
    done = json.loads(called(desk, "cancel_reservation", reservation_id="R1"))
    assert done["status"] == "cancelled" and sum(p["amount"] for p in done["payment_history"]) == 0
    assert "certificate_3221322 added" in called(desk, "send_certificate", user_id="ann", amount=50)
    assert "certificate_3221323 added" in called(desk, "send_certificate", user_id="ann", amount=50)


def test_one_stop_flights_wait_for_each_other():
    desk = AirlineDesk(AIRLINE)  # type: ignore[arg-type]
    asked = {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}
    found = json.loads(called(desk, "search_onestop_flight", **asked))
    assert len(found) == 1 and found[0][1]["scheduled_departure_time_est"] == "12:00:00"
    assert len(json.loads(called(desk, "search_direct_flight", **asked))) == 1
    assert json.loads(called(desk, "search_direct_flight", **{**asked, "date": "2024-05-21"})) == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tau-bench's layout with the small shop, and three tasks."""
    root = tmp_path_factory.mktemp("tau")
    (root / "retail" / "data").mkdir(parents=True)
    (root / "retail" / "wiki.md").write_text("# Policy\n- Obtain a yes.\n")
    for name, table in RETAIL.items():
        (root / "retail" / "data" / f"{name}.json").write_text(json.dumps(table))
    (root / "retail" / "tasks_test.py").write_text(
        """TASKS_TEST = [
    Task(annotator="0", user_id="ann", actions=[
        Action(name="cancel_pending_order", kwargs={"order_id": "#W1", "reason": "no longer needed"})], outputs=[],
        instruction="You are Ann Lee in 10001. You want to cancel your order #W1, which you no longer need."),
    Task(user_id="ann", instruction="You want to know the price of lamp i2.", actions=[], outputs=["90.25"]),
    Task(user_id="ann", instruction="You want a human.",
        actions=[Action(name="transfer_to_human_agents", kwargs={"summary": "x"})]),
]
"""
    )
    return root


def attempt(benchmark: Benchmark, task: int, *replies: str) -> Trace:
    agent = Agent("a", Scripted(list(replies)), thought_action, {"constrained": False})
    return asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))


def heard(trace: Trace) -> list[str]:
    return [call.detail["result"] for call in trace.calls if call.kind == "tool"]


def test_a_conversation_is_scored_by_the_database_and_by_what_was_said(shop: Path):
    benchmark = tau_retail(data=str(shop))
    assert benchmark.tasks(0)[0].prompt.endswith(
        "I am Ann Lee in 10001. I want to cancel my order #W1, which I no longer need."
    )
    assert "Obtain a yes." in benchmark.tasks(0)[0].conversation[0].text
    cancel = '{"name": "cancel_pending_order", "arguments": {"order_id": "%s", "reason": "no longer needed"}}'
    right = attempt(benchmark, 0, "What is your email?", "Do you confirm?", f"```json\n{cancel % '#W1'}\n```", "Done.")
    assert right.value() == 1 and right.final_state["ended"] == "customer stopped"
    assert heard(right)[:2] == ["My email is ann@example.com.", "Yes, please go ahead."]
    both = attempt(benchmark, 0, cancel % "#W1", cancel % "#W3", "Done.")
    assert both.value() == 0 and both.scores[0].detail["database"] is False and both.value("outputs") == 1
    assert both.scores[0].detail["reason"] == "wrong end"
    assert attempt(benchmark, 0, "Done.").value() == 0
    assert attempt(benchmark, 1, "It is $90.25.").value() == 1 and attempt(benchmark, 1, "It is $90.").value() == 0
    assert attempt(benchmark, 1, "It is 90.25, I think?", cancel % "#W1", "Done.").value() == 0
    gone = attempt(benchmark, 2, '{"name": "transfer_to_human_agents", "arguments": {"summary": "x"}}')
    assert gone.value() == 1 and gone.final_state["ended"] == "transferred"


def test_doing_nothing_earns_the_tasks_that_want_nothing_and_no_others(shop: Path):
    benchmark = tau_retail(data=str(shop))
    tasks = list(benchmark.tasks(0))
    assert [task.metadata["wanted"] for task in tasks] == ["change", "answer", "nothing"]
    traces = [asyncio.run(play(benchmark, task, "idle")) for task in tasks]
    assert [trace.value() for trace in traces] == [0, 0, 1] and all(not trace.calls for trace in traces)


def test_what_is_no_call_is_told(shop: Path):
    seen = heard(
        attempt(
            tau_retail(data=str(shop), rounds=6), 0, '{"name": ', '{"name": "rm", "arguments": {}}', "{}",
            '{"name": "get_order_details", "arguments": {"id": 1}}', "x" * 5000,
            '{"name": "get_order_details", "arguments": {"order_id": "W1"}}',
        )
    )  # fmt: skip
    assert "is no JSON" in seen[0] and "there is no tool 'rm': there are find_user" in seen[1]
    assert "no tool 'None'" in seen[2] and "do not fit get_order_details" in seen[3]
    assert "5000 characters" in seen[4] and seen[5].startswith("Error: order not found")


def test_a_customer_played_by_a_model_hears_what_was_said_and_its_tokens_are_counted(
    shop: Path, monkeypatch: pytest.MonkeyPatch
):
    played = Scripted(["I want to cancel #W1.", "yes", f"{STOP}"])
    monkeypatch.setattr(catalog, "model", lambda name: played)
    benchmark = tau_retail(data=str(shop), user="scripted:own")
    trace = attempt(benchmark, 0, "Hi! How can I help you?", "Sure?", "Done.")
    assert heard(trace)[:2] == ["I want to cancel #W1.", "yes"] and trace.final_state["ended"] == "customer stopped"
    assert trace.final_state["result"]["customer_tokens"] > 0 and trace.final_state["rounds"] == 3
    assert "greet the customer" in benchmark.tasks(0)[0].prompt and "#W1" not in benchmark.tasks(0)[0].prompt


def test_instructions_are_turned_to_the_first_person():
    said = first_person("You're Ann. You are sure that your lamp, given to you, is yours; ask yourself.")
    assert said == "I'm Ann. I am sure that my lamp, given to me, is mine; ask myself."


def test_files_that_are_none_of_tau_bench_are_told_and_never_run(tmp_path: Path):
    path = tmp_path / "tasks_test.py"
    for text, said in [
        ("x = 1", r"holds no Task"),
        ("def (", "no Python file"),
        ("Task(user_id='a', instruction='b', actions=[open('x')], outputs=[])", "no Action"),
        ("Task(user_id=open('/etc/passwd').read(), instruction='b', actions=[])", "no literal"),
        (
            "Task(user_id='a', instruction='b', actions=[Action(name='c', kwargs={'d': __import__('os')})])",
            "no literal",
        ),
        ("Task(user_id='a', actions=[])", "user_id and instruction"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_tasks(path)
    with pytest.raises(DataError, match="get tau-bench's data from"):
        tau_airline(data=str(tmp_path))
    with pytest.raises(ConfigError, match="split is 'train'"):
        tau_retail(data=str(tmp_path), split="train")


def test_pass_hat_k_is_the_chance_that_all_k_attempts_are_right():
    reduce = epoch_reducer("pass_hat_2")
    assert reduce is not None
    assert reduce([1, 1, 1, 0]) == 0.5 and reduce([1, 1]) == 1 and reduce([1, 0, 0]) == 0
    with pytest.raises(ConfigError, match="a task has 1 scored attempts"):
        reduce([1.0])


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", ["retail", "airline"])
def test_the_real_tasks_are_solved_by_their_own_calls(name: str):
    benchmark = {"retail": tau_retail, "airline": tau_airline}[name](data=str(SHARED))
    tasks = benchmark.tasks(0)
    assert len(tasks) == {"retail": 115, "airline": 50}[name]
    for index in range(0, len(tasks), 16):
        trace = asyncio.run(play(benchmark, tasks[index], "optimal"))
        assert trace.value() == 1 and trace.error is None, tasks[index].id


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("actions", ["text", "native"])
def test_all_real_tasks_are_solved_by_their_own_calls_in_text_and_natively(actions: str):
    for make in (tau_retail, tau_airline):
        benchmark = make(data=str(SHARED), actions=actions)  # type: ignore[operator]
        traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(0)]
        assert [trace.task_id for trace in traces if trace.value() != 1] == []
