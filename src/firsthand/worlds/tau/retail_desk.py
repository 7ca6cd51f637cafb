"""The shop's tools: orders, products and customers (tau-bench retail)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from firsthand.message import Json
from firsthand.worlds.tau.service_desk import Refused, ServiceDesk, ToolFunction, as_json, refusing

REASONS = ("no longer needed", "ordered by mistake")


class RetailDesk(ServiceDesk):
    """Tools over the tables `users`, `orders` and `products`."""

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """The domain's tools, the shared ones last."""
        return (
            self.find_user_id_by_email,
            self.find_user_id_by_name_zip,
            self.get_user_details,
            self.get_order_details,
            self.get_product_details,
            self.list_all_product_types,
            self.cancel_pending_order,
            self.modify_pending_order_address,
            self.modify_pending_order_items,
            self.modify_pending_order_payment,
            self.modify_user_address,
            self.return_delivered_order_items,
            self.exchange_delivered_order_items,
            *super().functions,
        )

    @refusing
    async def find_user_id_by_email(self, email: str) -> str:
        """Find a customer's id by email.

        Args:
            email: The email, such as something@example.com.
        """
        wanted = email.lower()
        return self._first(key for key, user in self.ledger.rows("users") if user["email"].lower() == wanted)

    @refusing
    async def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find a customer's id by name and zip code.

        Args:
            first_name: The first name, such as John.
            last_name: The last name, such as Doe.
            zip: The zip code, such as 12345.
        """
        wanted = (first_name.lower(), last_name.lower(), zip)
        return self._first(
            key
            for key, user in self.ledger.rows("users")
            if (user["name"]["first_name"].lower(), user["name"]["last_name"].lower(), user["address"]["zip"]) == wanted
        )

    @refusing
    async def get_user_details(self, user_id: str) -> str:
        """Get a customer's profile: address, payment methods, orders.

        Args:
            user_id: The id, such as sara_doe_496.
        """
        return as_json(self._need("users", user_id, "user"))

    @refusing
    async def get_order_details(self, order_id: str) -> str:
        """Get the status and the details of an order.

        Args:
            order_id: The id with the sign #, such as #W0000000.
        """
        return as_json(self._need("orders", order_id, "order"))

    @refusing
    async def get_product_details(self, product_id: str) -> str:
        """Get a product and its variants with options, price and availability.

        Args:
            product_id: The product's id, such as 6086499569, which is no item id.
        """
        return as_json(self._need("products", product_id, "product"))

    async def list_all_product_types(self) -> str:
        """List the name and the product id of all types of product."""
        return as_json({name: key for name, key in sorted((p["name"], key) for key, p in self.ledger.rows("products"))})

    @refusing
    async def cancel_pending_order(self, order_id: str, reason: str) -> str:
        """Cancel a pending order. Explain it to the customer and obtain a yes first.

        Args:
            order_id: The id with the sign #.
            reason: Either `no longer needed` or `ordered by mistake`.
        """
        self._order(order_id, "pending", "cancelled")
        if reason not in REASONS:
            raise Refused("invalid reason")
        order = self.ledger.edit("orders", order_id)
        refunds = [
            {"transaction_type": "refund", "amount": paid["amount"], "payment_method_id": paid["payment_method_id"]}
            for paid in order["payment_history"]
        ]
        for refund in refunds:
            self._pay(order["user_id"], refund["payment_method_id"], -refund["amount"])
        order |= {"status": "cancelled", "cancel_reason": reason}
        order["payment_history"] += refunds
        return as_json(order)

    @refusing
    async def modify_pending_order_address(
        self, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> str:
        """Change the shipping address of a pending order. Explain it to the customer and obtain a yes first.

        Args:
            order_id: The id with the sign #.
            address1: The first line, such as 123 Main St.
            address2: The second line, such as Apt 1; may be empty.
            city: The city.
            state: The state, such as CA.
            country: The country, such as USA.
            zip: The zip code.
        """
        self._order(order_id, "pending", "modified")
        order = self.ledger.edit("orders", order_id)
        order["address"] = _address(address1, address2, city, state, country, zip)
        return as_json(order)

    @refusing
    async def modify_user_address(
        self, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> str:
        """Change a customer's default address. Explain it to the customer and obtain a yes first.

        Args:
            user_id: The customer's id.
            address1: The first line, such as 123 Main St.
            address2: The second line, such as Apt 1; may be empty.
            city: The city.
            state: The state, such as CA.
            country: The country, such as USA.
            zip: The zip code.
        """
        self._need("users", user_id, "user")
        user = self.ledger.edit("users", user_id)
        user["address"] = _address(address1, address2, city, state, country, zip)
        return as_json(user)

    @refusing
    async def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> str:
        """Change items of a pending order to others of the same product; once for an order. Obtain a yes first.

        Args:
            order_id: The id with the sign #.
            item_ids: The items to change; an id may occur more than once.
            new_item_ids: For each the new item of the same product, in the same order.
            payment_method_id: The way to pay or to be refunded the difference.
        """
        order = self._order(order_id, "pending", "modified")
        difference = self._difference(order, item_ids, new_item_ids)
        self._can_pay(order["user_id"], payment_method_id, difference, "to pay for the new item")
        order = self.ledger.edit("orders", order_id)
        kind = "payment" if difference > 0 else "refund"
        paid = {"transaction_type": kind, "amount": abs(difference), "payment_method_id": payment_method_id}
        order["payment_history"].append(paid)
        self._pay(order["user_id"], payment_method_id, difference)
        for old, new in zip(item_ids, new_item_ids, strict=True):
            item = next(each for each in order["items"] if each["item_id"] == old)
            variant = self._need("products", item["product_id"], "product")["variants"][new]
            item |= {"item_id": new, "price": variant["price"], "options": variant["options"]}
        order["status"] = "pending (item modified)"
        return as_json(order)

    @refusing
    async def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> str:
        """Change the payment method of a pending order. Explain it to the customer and obtain a yes first.

        Args:
            order_id: The id with the sign #.
            payment_method_id: The new way to pay.
        """
        order = self._order(order_id, "pending", "modified")
        self._payment(order["user_id"], payment_method_id)
        history = order["payment_history"]
        if len(history) > 1 or history[0]["transaction_type"] != "payment":
            raise Refused("there should be exactly one payment for a pending order")
        before, amount = history[0]["payment_method_id"], history[0]["amount"]
        if before == payment_method_id:
            raise Refused("the new payment method should be different from the current one")
        self._can_pay(order["user_id"], payment_method_id, amount, "to pay for the order")
        order = self.ledger.edit("orders", order_id)
        order["payment_history"] += [
            {"transaction_type": "payment", "amount": amount, "payment_method_id": payment_method_id},
            {"transaction_type": "refund", "amount": amount, "payment_method_id": before},
        ]
        self._pay(order["user_id"], payment_method_id, amount)
        self._pay(order["user_id"], before, -amount)
        return as_json(order)

    @refusing
    async def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> str:
        """Return items of a delivered order. Explain it to the customer and obtain a yes first.

        Args:
            order_id: The id with the sign #.
            item_ids: The items to return; an id may occur more than once.
            payment_method_id: The way to be refunded: the original one, or a gift card.
        """
        order = self._order(order_id, "delivered", "returned")
        source = self._payment(order["user_id"], payment_method_id)["source"]
        if source != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
            raise Refused("payment method should be either the original payment method or a gift card")
        _check_items(order, item_ids)
        order = self.ledger.edit("orders", order_id)
        order |= {"status": "return requested", "return_items": sorted(item_ids)}
        order["return_payment_method_id"] = payment_method_id
        return as_json(order)

    @refusing
    async def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> str:
        """Exchange items of a delivered order for others of the same product; once for an order. Obtain a yes first.

        Args:
            order_id: The id with the sign #.
            item_ids: The items to exchange; an id may occur more than once.
            new_item_ids: For each the new item of the same product, in the same order.
            payment_method_id: The way to pay or to be refunded the difference.
        """
        order = self._order(order_id, "delivered", "exchanged")
        difference = round(self._difference(order, item_ids, new_item_ids), 2)
        self._can_pay(order["user_id"], payment_method_id, difference, "to pay for the price difference")
        order = self.ledger.edit("orders", order_id)
        order |= {
            "status": "exchange requested",
            "exchange_items": sorted(item_ids),
            "exchange_new_items": sorted(new_item_ids),
            "exchange_payment_method_id": payment_method_id,
            "exchange_price_difference": difference,
        }
        return as_json(order)

    def _first(self, found: object) -> str:
        for key in found:  # type: ignore[attr-defined]
            return str(key)
        raise Refused("user not found")

    def _order(self, order_id: str, status: str, done: str) -> Json:
        order = self._need("orders", order_id, "order")
        if order["status"] != status:
            raise Refused(f"non-{status} order cannot be {done}")
        return order

    def _difference(self, order: Json, item_ids: list[str], new_item_ids: list[str]) -> float:
        """The price of the new items less that of the old ones."""
        _check_items(order, item_ids)
        if len(item_ids) != len(new_item_ids):
            raise Refused("the number of items to be exchanged should match")
        total = 0.0
        for old, new in zip(item_ids, new_item_ids, strict=True):
            item = next(each for each in order["items"] if each["item_id"] == old)
            variant = self._need("products", item["product_id"], "product")["variants"].get(new)
            if variant is None or not variant["available"]:
                raise Refused(f"new item {new} not found or available")
            total += variant["price"] - item["price"]
        return total

    def _can_pay(self, user_id: str, payment_id: str, amount: float, what: str) -> None:
        method = self._payment(user_id, payment_id)
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise Refused(f"insufficient gift card balance {what}")

    def _pay(self, user_id: str, payment_id: str, amount: float) -> None:
        """Take the amount from a gift card; other ways to pay keep no balance."""
        if self._payment(user_id, payment_id)["source"] == "gift_card":
            card = self.ledger.edit("users", user_id)["payment_methods"][payment_id]
            card["balance"] = round(card["balance"] - amount, 2)


def _check_items(order: Json, item_ids: list[str]) -> None:
    held = Counter(item["item_id"] for item in order["items"])
    for item, count in Counter(item_ids).items():
        if count > held[item]:
            raise Refused(f"{item} not found")


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Json:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "state": state,
        "country": country,
        "zip": zip,
    }
