"""Bookings and changes of flights, each on a ledger of one customer: what is charged, what is kept, what is refused."""

import asyncio
import json
from typing import Any

from firsthand.worlds.tau.airline_desk import AirlineDesk

ANN = {"first_name": "Ann", "last_name": "Lee", "dob": "1990-01-01"}
BOB = {"first_name": "Bob", "last_name": "Ash", "dob": "1985-06-07"}


def desk() -> AirlineDesk:
    days: dict[str, Any] = {
        "05-20": {"status": "available", "available_seats": {"economy": 2, "business": 1},
                  "prices": {"economy": 100, "business": 310}},
        "05-21": {"status": "landed", "available_seats": {"economy": 9}, "prices": {"economy": 1}},
    }  # fmt: skip
    other = {**days, "05-20": {**days["05-20"], "prices": {"economy": 70, "business": 250}}}
    methods = {
        "card": {"source": "credit_card"}, "gift": {"source": "gift_card", "amount": 120},
        "paper": {"source": "certificate", "amount": 90},
    }  # fmt: skip
    return AirlineDesk(
        {
            "users": {"u": {"payment_methods": methods, "reservations": ["R"]}},
            "flights": {
                "F1": {"origin": "JFK", "destination": "ORD", "dates": days},
                "F2": {"origin": "ORD", "destination": "SEA", "dates": other},
            },
            "reservations": {
                "R": {"user_id": "u", "cabin": "economy", "passengers": [ANN, BOB], "nonfree_baggages": 2,
                      "total_baggages": 3, "payment_history": [],
                      "flights": [{"flight_number": "F1", "date": "05-20", "price": 60, "origin": "JFK",
                                   "destination": "ORD"}]},
            },
        }
    )  # fmt: skip


def leg(number: str, date: str = "05-20") -> dict[str, str]:
    return {"flight_number": number, "date": date}


def booked(desk: AirlineDesk, **changes: object) -> str:
    asked: dict[str, object] = {
        "user_id": "u", "origin": "JFK", "destination": "SEA", "flight_type": "one_way", "cabin": "economy",
        "flights": [leg("F1"), leg("F2")], "passengers": [ANN, BOB], "payment_methods": [], "total_baggages": 4,
        "nonfree_baggages": 3, "insurance": "yes",
    }  # fmt: skip
    return asyncio.run(desk.call("book_reservation", asked | changes))


def test_a_booking_costs_every_leg_and_insurance_for_each_passenger_and_each_paid_bag_once():
    made = desk()
    # two legs of 100 and 70 for two, three bags of 50, and twice 30: 340 + 150 + 60
    paid = [
        {"payment_id": "gift", "amount": 120},
        {"payment_id": "paper", "amount": 90},
        {"payment_id": "card", "amount": 340},
    ]
    people = [ANN, BOB]
    reservation = json.loads(booked(made, payment_methods=paid, passengers=people))
    assert reservation == {
        "reservation_id": "HATHAT", "user_id": "u", "origin": "JFK", "destination": "SEA", "flight_type": "one_way",
        "cabin": "economy",
        "flights": [
            {**leg("F1"), "price": 100, "origin": "JFK", "destination": "ORD"},
            {**leg("F2"), "price": 70, "origin": "ORD", "destination": "SEA"},
        ],
        "passengers": [ANN, BOB], "payment_history": paid, "created_at": "2024-05-15T15:00:00", "total_baggages": 4,
        "nonfree_baggages": 3, "insurance": "yes",
    }  # fmt: skip
    assert made.ledger.changes() == {
        "reservations": {"HATHAT": reservation},
        "users": {
            "u": {
                "payment_methods": {"card": {"source": "credit_card"}, "gift": {"source": "gift_card", "amount": 0}},
                "reservations": ["R", "HATHAT"],
            }
        },
    }
    paid[2]["amount"] = 1
    people.clear()
    assert made.ledger.find("reservations", "HATHAT") == reservation
    one = {"passengers": [ANN], "insurance": "no", "nonfree_baggages": 0, "cabin": "business", "flights": [leg("F2")]}
    for number in ("HATHAU", "HATHAV", "HATHAV"):  # the last id is used again, as in tau-bench
        again = json.loads(booked(made, **one, payment_methods=[{"payment_id": "card", "amount": 250}]))
        assert again["reservation_id"] == number


def test_a_leg_has_the_desks_price_and_places_whatever_was_given_with_it():
    given = {**leg("F1"), "price": 1, "origin": "LAX", "destination": "BOS", "seat": "3A"}
    booking = {"flights": [given], "destination": "ORD", "insurance": "no", "nonfree_baggages": 0}
    kept = {**leg("F1"), "price": 100, "origin": "JFK", "destination": "ORD", "seat": "3A"}
    made = desk()
    assert booked(made, **booking, payment_methods=[{"payment_id": "card", "amount": 2}]).endswith(
        "total price is 200, but paid 2"
    )
    reservation = json.loads(booked(made, **booking, payment_methods=[{"payment_id": "card", "amount": 200}]))
    assert reservation["flights"] == [kept] and given["price"] == 1
    changed = {"reservation_id": "R", "cabin": "economy", "flights": [{**leg("F2"), "price": 1}], "payment_id": "card"}
    reservation = json.loads(asyncio.run(made.call("update_reservation_flights", changed)))
    assert reservation["flights"] == [{**leg("F2"), "price": 70, "origin": "ORD", "destination": "SEA"}]


def test_a_booking_is_refused_by_the_first_thing_that_is_wrong_and_changes_nothing():
    made = desk()
    cases = [
        ({"user_id": "v"}, "user not found"),
        ({"flights": [leg("F1"), leg("F9")]}, "flight F9 not found"),
        ({"flights": [leg("F2", "05-22")]}, "flight F2 not found on date 05-22"),
        ({"flights": [leg("F2", "05-21")]}, "flight F2 not available on date 05-21"),
        ({"cabin": "business"}, "not enough seats on flight F1"),
        ({"payment_methods": [{"payment_id": "cash", "amount": 1}]}, "payment method cash not found"),
        ({"payment_methods": [{"payment_id": "gift", "amount": 121}]}, "not enough balance in payment method gift"),
        ({"payment_methods": [{"payment_id": "paper", "amount": 91}]}, "not enough balance in payment method paper"),
        (
            {"payment_methods": [{"payment_id": "gift", "amount": 120}, {"payment_id": "card", "amount": 429}]},
            "payment amount does not add up, total price is 550, but paid 549",
        ),
        (
            {"insurance": "no", "nonfree_baggages": 1, "passengers": [BOB], "total_baggages": 7},
            "payment amount does not add up, total price is 220, but paid 0",
        ),
    ]
    for changes, told in cases:
        assert booked(made, **changes) == f"Error: {told}", changes
    assert made.ledger.changes() == {}


def test_a_flight_that_stays_in_its_cabin_keeps_its_old_price_and_all_pay_the_difference():
    made = desk()

    def changed(cabin: str, flights: list[dict[str, str]], payment: str) -> str:
        asked = {"reservation_id": "R", "cabin": cabin, "flights": flights, "payment_id": payment}
        return asyncio.run(made.call("update_reservation_flights", asked))

    before = made.ledger.find("reservations", "R")
    assert (
        changed("economy", [leg("F1"), leg("F2")], "paper") == "Error: certificate cannot be used to update reservation"
    )
    assert changed("economy", [leg("F1"), leg("F2")], "gift") == "Error: gift card balance is not enough"  # 140 of 120
    assert changed("business", [leg("F1")], "card") == "Error: not enough seats on flight F1"
    assert changed("economy", [leg("F2")], "cash") == "Error: payment method not found"
    assert made.ledger.changes() == {}
    after = json.loads(changed("economy", [leg("F2"), leg("F1")], "card"))
    flights = [
        {**leg("F2"), "price": 70, "origin": "ORD", "destination": "SEA"},
        {**leg("F1"), "price": 60, "origin": "JFK", "destination": "ORD"},
    ]
    assert after == {**before, "flights": flights, "payment_history": [{"payment_id": "card", "amount": 140}]}
    assert made.ledger.changes() == {"reservations": {"R": after}}
    back = json.loads(changed("economy", [leg("F1")], "gift"))  # 70 for each of two is refunded
    assert back["payment_history"] == [{"payment_id": "card", "amount": 140}, {"payment_id": "gift", "amount": -140}]
    assert made.ledger.find("users", "u")["payment_methods"]["gift"]["amount"] == 260
    same = json.loads(changed("economy", [leg("F1")], "card"))
    assert same == back  # no difference, no payment


def test_more_paid_bags_cost_fifty_each_and_fewer_give_nothing_back():
    made = desk()

    def changed(total: int, paid: int, payment: str) -> str:
        asked = {"reservation_id": "R", "total_baggages": total, "nonfree_baggages": paid, "payment_id": payment}
        return asyncio.run(made.call("update_reservation_baggages", asked))

    assert changed(6, 5, "gift") == "Error: gift card balance is not enough"  # 150 of 120
    assert made.ledger.changes() == {}
    made.ledger.edit("users", "u")["payment_methods"]["gift"]["amount"] = 100
    after = json.loads(changed(7, 4, "gift"))  # all that the card holds
    assert (after["total_baggages"], after["nonfree_baggages"]) == (7, 4)
    assert after["payment_history"] == [{"payment_id": "gift", "amount": 100}]
    assert made.ledger.find("users", "u")["payment_methods"]["gift"]["amount"] == 0
    fewer = json.loads(changed(1, 0, "card"))
    assert fewer == {**after, "total_baggages": 1, "nonfree_baggages": 0}
