"""The airline's tools: flights, reservations and customers (tau-bench airline).

As in tau-bench, a change of flights leaves the reservation's recorded cabin as it was, and seats are not counted down.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from firsthand.message import Json
from firsthand.worlds.tau.service_desk import Refused, ServiceDesk, ToolFunction, as_json, refusing

NOW = "2024-05-15T15:00:00"
NEW_RESERVATIONS = ("HATHAT", "HATHAU", "HATHAV")
NEW_CERTIFICATES = ("certificate_3221322", "certificate_3221323", "certificate_3221324")
INSURANCE, BAGGAGE = 30, 50
"""Dollars for each passenger, and for each bag that is not free."""
Cabin = Literal["basic_economy", "economy", "business"]


class FlightLeg(TypedDict):
    """A flight on a day."""

    flight_number: str
    date: str


class Passenger(TypedDict):
    """A passenger; dates as 1990-01-01."""

    first_name: str
    last_name: str
    dob: str


class FlightPayment(TypedDict):
    """An amount in dollars from one of the customer's payment methods."""

    payment_id: str
    amount: float


class AirlineDesk(ServiceDesk):
    """Tools over the tables `users`, `flights` and `reservations`."""

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """The domain's tools, the shared ones last."""
        return (
            self.get_user_details,
            self.get_reservation_details,
            self.list_all_airports,
            self.search_direct_flight,
            self.search_onestop_flight,
            self.book_reservation,
            self.cancel_reservation,
            self.update_reservation_flights,
            self.update_reservation_baggages,
            self.update_reservation_passengers,
            self.send_certificate,
            *super().functions,
        )

    @refusing
    async def get_user_details(self, user_id: str) -> str:
        """Get a customer's profile: membership, payment methods, reservations.

        Args:
            user_id: The id, such as sara_doe_496.
        """
        return as_json(self._need("users", user_id, "user"))

    @refusing
    async def get_reservation_details(self, reservation_id: str) -> str:
        """Get the details of a reservation.

        Args:
            reservation_id: The id, such as 8JX2WO.
        """
        return as_json(self._need("reservations", reservation_id, "reservation"))

    async def list_all_airports(self) -> str:
        """List the codes of all airports."""
        return as_json(sorted({end for _, f in self.ledger.rows("flights") for end in (f["origin"], f["destination"])}))

    @refusing
    async def search_direct_flight(self, origin: str, destination: str, date: str) -> str:
        """Search for flights between two airports on a day.

        Args:
            origin: The airport's code, such as JFK.
            destination: The airport's code, such as LAX.
            date: The day, such as 2024-05-01.
        """
        return as_json(
            [
                _offer(flight, date)
                for _, flight in self.ledger.rows("flights")
                if (flight["origin"], flight["destination"]) == (origin, destination) and _is_open(flight, date)
            ]
        )

    @refusing
    async def search_onestop_flight(self, origin: str, destination: str, date: str) -> str:
        """Search for pairs of flights between two airports with one stop.

        Args:
            origin: The airport's code, such as JFK.
            destination: The airport's code, such as LAX.
            date: The day of the first flight, such as 2024-05-01.
        """
        flights = [flight for _, flight in self.ledger.rows("flights")]
        found = []
        for first in flights:
            if first["origin"] != origin or not _is_open(first, date):
                continue
            arrival = first["scheduled_arrival_time_est"]
            day = (
                (datetime.date.fromisoformat(date) + datetime.timedelta(days=1)).isoformat()
                if "+1" in arrival
                else date
            )
            for second in flights:
                joined = second["origin"] == first["destination"] and second["destination"] == destination
                if joined and arrival <= second["scheduled_departure_time_est"] and _is_open(second, day):
                    found.append([_offer(first, date), _offer(second, day)])
        return as_json(found)

    @refusing
    async def book_reservation(
        self,
        user_id: str,
        origin: str,
        destination: str,
        flight_type: Literal["one_way", "round_trip"],
        cabin: Cabin,
        flights: list[FlightLeg],
        passengers: list[Passenger],
        payment_methods: list[FlightPayment],
        total_baggages: int,
        nonfree_baggages: int,
        insurance: Literal["yes", "no"],
    ) -> str:
        """Book a reservation. List the details to the customer and obtain a yes first.

        Args:
            user_id: The customer's id.
            origin: The airport's code, such as SFO.
            destination: The airport's code, such as JFK.
            flight_type: one_way or round_trip.
            cabin: basic_economy, economy or business.
            flights: All flights, in order.
            passengers: All passengers.
            payment_methods: The amounts; they add up to the price.
            total_baggages: All bags.
            nonfree_baggages: The bags that are paid for.
            insurance: yes or no.
        """
        user = self._need("users", user_id, "user")
        taken = [id for id in NEW_RESERVATIONS if self.ledger.find("reservations", id) is None]
        id = taken[0] if taken else NEW_RESERVATIONS[-1]
        legs = [self._leg(leg, cabin, len(passengers)) for leg in flights]
        price = sum(leg["price"] for leg in legs) * len(passengers) + BAGGAGE * nonfree_baggages
        price += INSURANCE * len(passengers) if insurance == "yes" else 0
        for paid in payment_methods:
            method = user["payment_methods"].get(paid["payment_id"])
            if method is None:
                raise Refused(f"payment method {paid['payment_id']} not found")
            if method["source"] in ("gift_card", "certificate") and method["amount"] < paid["amount"]:
                raise Refused(f"not enough balance in payment method {paid['payment_id']}")
        total = sum(paid["amount"] for paid in payment_methods)
        if total != price:
            raise Refused(f"payment amount does not add up, total price is {price}, but paid {total}")
        user = self.ledger.edit("users", user_id)
        for paid in payment_methods:
            method = user["payment_methods"][paid["payment_id"]]
            if method["source"] == "gift_card":
                method["amount"] -= paid["amount"]
            elif method["source"] == "certificate":
                del user["payment_methods"][paid["payment_id"]]
        reservation: Json = {
            "reservation_id": id,
            "user_id": user_id,
            "origin": origin,
            "destination": destination,
            "flight_type": flight_type,
            "cabin": cabin,
            "flights": legs,
            "passengers": copy.deepcopy(passengers),
            "payment_history": copy.deepcopy(payment_methods),
            "created_at": NOW,
            "total_baggages": total_baggages,
            "nonfree_baggages": nonfree_baggages,
            "insurance": insurance,
        }
        self.ledger.add("reservations", id, reservation)
        user["reservations"].append(id)
        return as_json(reservation)

    @refusing
    async def cancel_reservation(self, reservation_id: str) -> str:
        """Cancel a whole reservation. The rules are not checked for you; obtain a yes first.

        Args:
            reservation_id: The id, such as ZFA04Y.
        """
        self._need("reservations", reservation_id, "reservation")
        reservation = self.ledger.edit("reservations", reservation_id)
        reservation["payment_history"] += [
            {"payment_id": paid["payment_id"], "amount": -paid["amount"]} for paid in reservation["payment_history"]
        ]
        reservation["status"] = "cancelled"
        return as_json(reservation)

    @refusing
    async def update_reservation_flights(
        self, reservation_id: str, cabin: Cabin, flights: list[FlightLeg], payment_id: str
    ) -> str:
        """Change the flights or the cabin of a reservation. Obtain a yes first.

        Args:
            reservation_id: The id, such as ZFA04Y.
            cabin: basic_economy, economy or business.
            flights: All flights of the new reservation, those that stay included.
            payment_id: The gift card or credit card to pay or refund the difference.
        """
        reservation = self._need("reservations", reservation_id, "reservation")
        count = len(reservation["passengers"])
        legs = []
        for leg in flights:
            kept = [
                each
                for each in reservation["flights"]
                if (each["flight_number"], each["date"]) == (leg["flight_number"], leg["date"])
                and cabin == reservation["cabin"]
            ]
            same = {key: kept[0][key] for key in ("price", "origin", "destination")} if kept else {}
            legs.append({**leg, **same} if kept else self._leg(leg, cabin, count))
        price = (sum(leg["price"] for leg in legs) - sum(leg["price"] for leg in reservation["flights"])) * count
        self._charge(reservation_id, reservation, payment_id, price)
        reservation = self.ledger.edit("reservations", reservation_id)
        reservation["flights"] = legs
        return as_json(reservation)

    @refusing
    async def update_reservation_baggages(
        self, reservation_id: str, total_baggages: int, nonfree_baggages: int, payment_id: str
    ) -> str:
        """Change the bags of a reservation. Obtain a yes first.

        Args:
            reservation_id: The id, such as ZFA04Y.
            total_baggages: All bags after the change.
            nonfree_baggages: The bags that are paid for, after the change.
            payment_id: The gift card or credit card to pay.
        """
        reservation = self._need("reservations", reservation_id, "reservation")
        price = BAGGAGE * max(0, nonfree_baggages - reservation["nonfree_baggages"])
        self._charge(reservation_id, reservation, payment_id, price)
        reservation = self.ledger.edit("reservations", reservation_id)
        reservation |= {"total_baggages": total_baggages, "nonfree_baggages": nonfree_baggages}
        return as_json(reservation)

    @refusing
    async def update_reservation_passengers(self, reservation_id: str, passengers: list[Passenger]) -> str:
        """Change the passengers of a reservation, not their number. Obtain a yes first.

        Args:
            reservation_id: The id, such as ZFA04Y.
            passengers: All passengers after the change.
        """
        reservation = self._need("reservations", reservation_id, "reservation")
        if len(passengers) != len(reservation["passengers"]):
            raise Refused("number of passengers does not match")
        reservation = self.ledger.edit("reservations", reservation_id)
        reservation["passengers"] = copy.deepcopy(passengers)
        return as_json(reservation)

    @refusing
    async def send_certificate(self, user_id: str, amount: int) -> str:
        """Send a certificate to a customer. Only as the policy allows.

        Args:
            user_id: The customer's id.
            amount: Dollars.
        """
        user = self._need("users", user_id, "user")
        id = next((each for each in NEW_CERTIFICATES if each not in user["payment_methods"]), None)
        if id is None:
            raise Refused("the customer has been sent three certificates")
        user = self.ledger.edit("users", user_id)
        user["payment_methods"][id] = {"source": "certificate", "amount": amount, "id": id}
        return f"Certificate {id} added to user {user_id} with amount {amount}."

    def _leg(self, leg: FlightLeg, cabin: str, passengers: int) -> Json:
        """A flight on a day with its price in a cabin; refused if it cannot be booked."""
        number, day = leg["flight_number"], leg["date"]
        flight = self.ledger.find("flights", number)
        if flight is None:
            raise Refused(f"flight {number} not found")
        if day not in flight["dates"]:
            raise Refused(f"flight {number} not found on date {day}")
        if not _is_open(flight, day):
            raise Refused(f"flight {number} not available on date {day}")
        offer = flight["dates"][day]
        if offer["available_seats"][cabin] < passengers:
            raise Refused(f"not enough seats on flight {number}")
        return {
            **leg,
            "price": offer["prices"][cabin],
            "origin": flight["origin"],
            "destination": flight["destination"],
        }

    def _charge(self, id: str, reservation: Json, payment_id: str, price: float) -> None:
        """Charge, or refund, a card for a change of a reservation."""
        method = self._payment(reservation["user_id"], payment_id)
        if method["source"] == "certificate":
            raise Refused("certificate cannot be used to update reservation")
        if method["source"] == "gift_card":
            if method["amount"] < price:
                raise Refused("gift card balance is not enough")
            if price:
                self.ledger.edit("users", reservation["user_id"])["payment_methods"][payment_id]["amount"] -= price
        if price:
            paid = {"payment_id": payment_id, "amount": price}
            self.ledger.edit("reservations", id)["payment_history"].append(paid)


def _is_open(flight: Json, day: str) -> bool:
    return bool(flight["dates"].get(day, {}).get("status") == "available")


def _offer(flight: Json, day: str) -> Json:
    """A flight on a day as an offer; with the date, so that a later leg can be booked."""
    plain = {key: value for key, value in flight.items() if key != "dates"}
    return {**plain, **flight["dates"][day], "date": day}
