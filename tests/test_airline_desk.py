"""The airline's tools on a small ledger: what is found, booked, changed and paid, record by record."""

import json

from firsthand.worlds.tau.airline_desk import AirlineDesk
from test_tau_desks import called, person, record


def flight(number: str, ends: str, times: str, days: dict[str, dict[str, object]]) -> dict[str, object]:
    (origin, end), (leaves, lands) = ends.split(), times.split()
    return {
        "flight_number": number, "origin": origin, "destination": end, "scheduled_departure_time_est": leaves,
        "scheduled_arrival_time_est": lands, "dates": days,
    }  # fmt: skip


def open_day(economy: int, business: int, seats: int) -> dict[str, object]:
    return {
        "status": "available", "available_seats": {"economy": seats, "business": 1},
        "prices": {"economy": economy, "business": business},
    }  # fmt: skip


def airline() -> AirlineDesk:
    flown = {"price": 70, "origin": "JFK", "destination": "SEA", "flight_number": "F1", "date": "2024-05-20"}
    back = {"price": 90, "origin": "SEA", "destination": "JFK", "flight_number": "F6", "date": "2024-05-22"}
    people = [{"first_name": first, "last_name": "L", "dob": "1990-01-01"} for first in "AB"]
    return AirlineDesk(
        {
            "users": {
                "ann": person(
                    "Ann", "Lee", "a@b.c", {"gift_card_1": 100, "credit_card_1": 0, "certificate_1": 80}
                )
            },
            "flights": {
                "F1": flight("F1", "JFK SEA", "08:00:00 11:00:00", {
                    "2024-05-20": open_day(100, 300, 2), "2024-05-21": {"status": "delayed"}}),
                "F2": flight("F2", "JFK ORD", "08:00:00 10:00:00", {"2024-05-20": open_day(45, 200, 5)}),
                "F3": flight("F3", "ORD SEA", "10:00:00 15:00:00", {"2024-05-20": open_day(55, 210, 5)}),
                "F4": flight("F4", "ORD SEA", "09:59:59 12:00:00", {
                    "2024-05-20": open_day(65, 220, 5), "2024-05-31": open_day(1, 2, 3)}),
                "F5": flight("F5", "JFK ORD", "20:00:00 01:00:00+1", {"2024-05-20": open_day(75, 230, 5)}),
                "F6": flight("F6", "SEA JFK", "07:00:00 13:00:00", {"2024-05-22": open_day(120, 310, 5)}),
                "F7": flight("F7", "ORD SEA", "06:00:00 08:00:00", {"2024-05-21": open_day(85, 240, 5)}),
            },
            "reservations": {
                "R1": {
                    "reservation_id": "R1", "user_id": "ann", "cabin": "economy", "nonfree_baggages": 1,
                    "total_baggages": 2, "flights": [flown, back], "passengers": people,
                    "payment_history": [{"payment_id": "credit_card_1", "amount": 320}],
                }
            },
        }
    )  # fmt: skip


def test_one_stop_flights_join_at_the_same_minute_and_over_midnight():
    desk = airline()
    asked = {"origin": "JFK", "destination": "SEA", "date": "2024-05-20"}
    found = json.loads(called(desk, "search_onestop_flight", **asked))
    assert [[(leg["flight_number"], leg["date"]) for leg in pair] for pair in found] == [
        [("F2", "2024-05-20"), ("F3", "2024-05-20")],
        [("F5", "2024-05-20"), ("F7", "2024-05-21")],
    ]
    assert found[0][1] == {
        "flight_number": "F3", "origin": "ORD", "destination": "SEA", "scheduled_departure_time_est": "10:00:00",
        "scheduled_arrival_time_est": "15:00:00", **open_day(55, 210, 5), "date": "2024-05-20",
    }  # fmt: skip
    direct = json.loads(called(desk, "search_direct_flight", **asked))
    assert [(leg["flight_number"], leg["prices"]["economy"]) for leg in direct] == [("F1", 100)]
    assert called(desk, "search_direct_flight", origin="SEA", destination="JFK", date="2024-05-20") == "[]"
    assert called(desk, "list_all_airports") == '["JFK", "ORD", "SEA"]'
    assert called(desk, "get_reservation_details", reservation_id="R2") == "Error: reservation not found"


def test_a_booking_is_recorded_whole_and_paid_from_each_method():
    """Two passengers: 2 * (100 + 120) + 50 * 2 bags + 30 * 2 for the insurance = 600."""
    desk = airline()
    people = [{"first_name": first, "last_name": "L", "dob": "1990-01-01"} for first in "CD"]
    paid = [
        {"payment_id": "gift_card_1", "amount": 100},
        {"payment_id": "certificate_1", "amount": 79},
        {"payment_id": "credit_card_1", "amount": 421},
    ]
    booking: dict[str, object] = {
        "user_id": "ann", "origin": "JFK", "destination": "SEA", "flight_type": "round_trip", "cabin": "economy",
        "flights": [{"flight_number": "F1", "date": "2024-05-20"}, {"flight_number": "F6", "date": "2024-05-22"}],
        "passengers": people, "payment_methods": paid, "total_baggages": 5, "nonfree_baggages": 2, "insurance": "yes",
    }  # fmt: skip
    for change, said in [
        ({"insurance": "no"}, "payment amount does not add up, total price is 540, but paid 600"),
        (
            {"payment_methods": [{"payment_id": "gift_card_1", "amount": 101}]},
            "not enough balance in payment method gift_card_1",
        ),
        ({"payment_methods": [{"payment_id": "paypal_1", "amount": 1}]}, "payment method paypal_1 not found"),
        ({"passengers": people * 2}, "not enough seats on flight F1"),
        ({"user_id": "eve"}, "user not found"),
        ({"flights": [{"flight_number": "F1", "date": "2024-05-23"}]}, "flight F1 not found on date 2024-05-23"),
        ({"flights": [{"flight_number": "F1", "date": "2024-05-21"}]}, "flight F1 not available on date 2024-05-21"),
    ]:  # fmt: skip
        assert called(desk, "book_reservation", **{**booking, **change}) == f"Error: {said}"
    assert desk.ledger.changes() == {}
    done = record(desk, "book_reservation", **booking)
    legs = [
        {"flight_number": "F1", "date": "2024-05-20", "price": 100, "origin": "JFK", "destination": "SEA"},
        {"flight_number": "F6", "date": "2024-05-22", "price": 120, "origin": "SEA", "destination": "JFK"},
    ]
    assert done == {
        "reservation_id": "HATHAT", "user_id": "ann", "origin": "JFK", "destination": "SEA",
        "flight_type": "round_trip", "cabin": "economy", "flights": legs, "passengers": people,
        "payment_history": paid, "created_at": "2024-05-15T15:00:00", "total_baggages": 5, "nonfree_baggages": 2,
        "insurance": "yes",
    }  # fmt: skip
    assert desk.ledger.changes()["reservations"] == {"HATHAT": done}
    ann = desk.ledger.changes()["users"]["ann"]
    assert ann["reservations"] == ["R1", "HATHAT"] and ann["payment_methods"] == {
        "gift_card_1": {"source": "gift_card", "id": "gift_card_1", "balance": 100, "amount": 0},
        "credit_card_1": {"source": "credit_card", "id": "credit_card_1"},
    }
    business = {
        **booking, "cabin": "business", "passengers": people[:1], "insurance": "no", "nonfree_baggages": 0,
        "payment_methods": [{"payment_id": "credit_card_1", "amount": 610}],
    }  # fmt: skip
    ids = [record(desk, "book_reservation", **business)["reservation_id"] for _ in range(3)]
    assert ids == ["HATHAU", "HATHAV", "HATHAV"]


def test_flights_change_for_the_difference_of_all_passengers():
    first, back = {"flight_number": "F1", "date": "2024-05-20"}, {"flight_number": "F6", "date": "2024-05-22"}
    change = {"reservation_id": "R1", "cabin": "economy", "payment_id": "gift_card_1"}
    desk = airline()  # 2 * (70 + 90) before, 2 * (45 + 90) after: 50 come back
    done = record(
        desk, "update_reservation_flights", **change, flights=[{"flight_number": "F2", "date": "2024-05-20"}, back]
    )
    assert done["flights"] == [
        {"flight_number": "F2", "date": "2024-05-20", "price": 45, "origin": "JFK", "destination": "ORD"},
        {**back, "price": 90, "origin": "SEA", "destination": "JFK"},
    ]
    assert done["payment_history"][1:] == [{"payment_id": "gift_card_1", "amount": -50}] and done["cabin"] == "economy"
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["amount"] == 150
    dear = {**change, "flights": [first, {"flight_number": "F3", "date": "2024-05-20"}, back]}
    assert called(airline(), "update_reservation_flights", **dear) == "Error: gift card balance is not enough"  # 110
    assert called(airline(), "update_reservation_flights", **{**dear, "payment_id": "certificate_1"}) == (
        "Error: certificate cannot be used to update reservation"
    )
    assert called(airline(), "update_reservation_flights", **{**dear, "cabin": "business"}) == (
        "Error: not enough seats on flight F1"
    )
    desk = airline()
    done = record(desk, "update_reservation_flights", **{**dear, "payment_id": "credit_card_1"})
    assert done["payment_history"][1:] == [{"payment_id": "credit_card_1", "amount": 110}]
    assert list(desk.ledger.changes()) == ["reservations"]


def test_bags_passengers_cancellations_and_certificates_are_recorded():
    desk = airline()
    bags = {"reservation_id": "R1", "payment_id": "gift_card_1"}
    done = record(
        desk, "update_reservation_baggages", **bags, total_baggages=6, nonfree_baggages=3
    )  # all 100 of the card
    assert (done["total_baggages"], done["nonfree_baggages"]) == (6, 3)
    assert done["payment_history"][-1] == {"payment_id": "gift_card_1", "amount": 100}
    assert desk.ledger.changes()["users"]["ann"]["payment_methods"]["gift_card_1"]["amount"] == 0
    fewer = record(desk, "update_reservation_baggages", **bags, total_baggages=1, nonfree_baggages=0)
    assert len(fewer["payment_history"]) == 2 and fewer["nonfree_baggages"] == 0  # nothing is given back
    others = [{"first_name": first, "last_name": "X", "dob": "2000-01-01"} for first in "EF"]
    new = record(desk, "update_reservation_passengers", reservation_id="R1", passengers=others)
    assert new["passengers"] == others
    others[0]["first_name"] = "changed afterwards"
    assert desk.ledger.find("reservations", "R1")["passengers"][0]["first_name"] == "E"
    for count in (1, 3):
        assert called(desk, "update_reservation_passengers", reservation_id="R1", passengers=others[:1] * count) == (
            "Error: number of passengers does not match"
        )
    gone = record(desk, "cancel_reservation", reservation_id="R1")
    assert gone["status"] == "cancelled" and [paid["amount"] for paid in gone["payment_history"]] == [
        320, 100, -320, -100,
    ]  # fmt: skip
    assert called(desk, "cancel_reservation", reservation_id="R9") == "Error: reservation not found"
    sent = [called(desk, "send_certificate", user_id="ann", amount=amount) for amount in (50, 60, 70, 80)]
    assert sent[2] == "Certificate certificate_3221324 added to user ann with amount 70."
    assert sent[3] == "Error: the customer has been sent three certificates"
    held = desk.ledger.changes()["users"]["ann"]["payment_methods"]
    assert held["certificate_3221323"] == {"source": "certificate", "amount": 60, "id": "certificate_3221323"}


def test_stops_are_made_only_where_both_flights_are_open_and_meet():
    days = {"2024-05-31": open_day(10, 20, 3)}
    closed = {"2024-05-31": {"status": "delayed"}, "2024-06-01": open_day(1, 2, 3)}
    desk = AirlineDesk(
        {
            "users": {},
            "reservations": {},
            "flights": {
                "A": flight("A", "JFK ORD", "08:00:00 10:00:00", days),
                "B": flight("B", "BOS ORD", "08:00:00 09:00:00", days),  # from elsewhere
                "C": flight("C", "JFK DEN", "08:00:00 09:00:00", closed),  # not that day
                "D": flight("D", "ORD LAX", "11:00:00 12:00:00", days),  # to elsewhere
                "E": flight("E", "DEN SEA", "11:00:00 12:00:00", days),
                "F": flight("F", "ORD SEA", "11:00:00 12:00:00", closed),  # late
                "G": flight("G", "ORD SEA", "23:00:00 23:30:00", days),
                "H": flight("H", "JFK DEN", "22:00:00 01:00:00+1", days),
                "I": flight("I", "DEN SEA", "02:00:00 04:00:00", {"2024-06-01": open_day(7, 8, 9)}),
                "J": flight("J", "DEN SEA", "00:30:00 04:00:00", {"2024-06-01": open_day(7, 8, 9)}),
            },
        }
    )
    found = json.loads(called(desk, "search_onestop_flight", origin="JFK", destination="SEA", date="2024-05-31"))
    assert [[(leg["flight_number"], leg["date"]) for leg in pair] for pair in found] == [
        [("A", "2024-05-31"), ("G", "2024-05-31")],
        [("H", "2024-05-31"), ("I", "2024-06-01")],
    ]
    assert called(desk, "search_onestop_flight", origin="JFK", destination="ORD", date="2024-05-31") == "[]"
    assert called(desk, "list_all_airports") == '["BOS", "DEN", "JFK", "LAX", "ORD", "SEA"]'
    assert len(desk.functions) == 14
