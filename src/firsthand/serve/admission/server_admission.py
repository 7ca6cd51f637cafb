"""Admission: API keys, limits on requests under way, token allowances, and draining. For one event loop."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.admission.admission_settings import AdmissionSettings, is_loopback
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.http.refusals import Refusal

WINDOW_S = 60.0
"""Token allowances are for this long."""


class Admission:
    """Decides which requests are served, and knows those that are under way.

    `mean_request_s` estimates the duration of a request, after which refused clients should retry.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        settings: AdmissionSettings | None = None,
        *,
        mean_request_s: Callable[[], float] = lambda: 1.0,
    ):
        self.keys = keys or Keys()
        self.settings = settings or AdmissionSettings()
        self.active: set[ActiveRequest] = set()
        self.in_flight = 0
        """Requests that hold a slot."""
        self.by_client: dict[str, int] = {}
        """The number of them by client; clients without any are left out."""
        self.is_draining = False
        self._mean_request_s = mean_request_s
        self._spent: dict[str, deque[tuple[float, int]]] = {}
        """Time and number of the tokens of each client with an allowance, in the last minute."""

    def check_host(self, host: str | None) -> None:
        """Refuse a Host header of another site: a browser may have been tricked into sending it (DNS rebinding)."""
        name = (host or "").rpartition(":")[0] if re.search(r":\d+$", host or "") else (host or "")
        if self.settings.allow_host:
            if name not in self.settings.allow_host:
                raise Refusal(421, f"this server is not {name[:80]!r}", headers={"connection": "close"})
        elif not self.keys.clients and name and not is_loopback(name):
            raise Refusal(421, f"without API keys only this machine is served, not {name[:80]!r}")

    def check_origin(self, origin: str | None, site: str | None) -> None:
        """Refuse a request that a web page of another site makes, where no keys keep it out.

        A browser names the page in Origin, or without it says `cross-site` in Sec-Fetch-Site. Pages of this machine and of
        `allow_host` may ask, and so may browser extensions, which no page can pass for.
        """
        if self.keys.clients:
            return
        scheme, _, host = (origin or "").partition("://")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if origin is None:
            is_other = site == "cross-site"
        else:
            is_other = origin == "null" or scheme.lower() in ("http", "https", "")
            is_other = is_other and not is_loopback(name) and name not in self.settings.allow_host
        if is_other:
            page = "a web page of another site" if origin is None else f"a web page of {origin[:80]!r}"
            raise Refusal(
                403, f"{page} asks: without API keys only pages of this machine may; give --keys or --allow-host"
            )

    def client(self, authorization: str | None, api_key: str | None = None) -> Client:
        """The client that an Authorization header, or without one an X-Api-Key header, belongs to; a Refusal if it carries
        no known key."""
        if authorization is None and api_key is not None:
            authorization = f"Bearer {api_key}"
        client = self.keys.find(authorization)
        if client is None:
            problem = "an API key is needed" if authorization is None else "the API key is wrong"
            raise Refusal(
                401, f"{problem}: send the header Authorization: Bearer KEY, or X-Api-Key: KEY", code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        return client

    def check_open(self) -> None:
        """Raise a Refusal while the server drains."""
        if self.is_draining:
            close = {"retry-after": "5", "connection": "close"}
            raise Refusal(503, "the server is stopping: ask another one", code="draining", headers=close)

    @contextmanager
    def slot(self, client: Client, *, works: bool = True) -> Iterator[None]:
        """Hold one of the server's and one of the client's slots; a Refusal if none is free.

        One that `works` may cost tokens: a Refusal, too, while those of the minute are spent.
        """
        if self.in_flight >= self.settings.max_requests:
            raise Refusal(
                429, f"{self.in_flight} requests are under way: try again later", code="overloaded",
                headers={"retry-after": str(self._retry_after_s())},
            )  # fmt: skip
        own = self.by_client.get(client.name, 0)
        if own >= client.limits.concurrency:
            raise Refusal(
                429, f"{own} requests of {client.name} are under way, as many as it may have: wait for one to end",
                code="rate_limit_exceeded", headers={"retry-after": str(self._retry_after_s())},
            )  # fmt: skip
        if works and (wait_s := self.wait_for_tokens_s(client)) > 0:
            raise Refusal(
                429, f"{client.name} has had its {client.limits.tokens_per_minute} tokens of this minute: wait",
                code="rate_limit_exceeded", headers={"retry-after": str(math.ceil(wait_s))},
            )  # fmt: skip
        self.by_client[client.name] = own + 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            left = self.by_client.pop(client.name) - 1
            if left:
                self.by_client[client.name] = left

    def charge(self, client: Client, num_tokens: int) -> None:
        """Count tokens against the client's allowance, if it has one."""
        if client.limits.tokens_per_minute and num_tokens:
            self._spent.setdefault(client.name, deque()).append((time.monotonic(), num_tokens))

    def charge_by_name(self, name: str, num_tokens: int) -> None:
        """Count tokens against the allowance of the client of this name; without keys there is one client for all."""
        for client in self.keys.clients or (self.keys.anyone,):
            if client.name == name or not self.keys.clients:
                self.charge(client, num_tokens)

    def wait_for_tokens_s(self, client: Client) -> float:
        """Seconds until the client may have tokens again; 0 if it may now."""
        spent, now = self._spent.get(client.name), time.monotonic()
        if not client.limits.tokens_per_minute or spent is None:
            return 0.0
        while spent and spent[0][0] <= now - WINDOW_S:
            spent.popleft()
        total = sum(count for _, count in spent)
        for at, count in spent:
            if total < client.limits.tokens_per_minute:
                break
            total -= count
            if total < client.limits.tokens_per_minute:
                return at + WINDOW_S - now
        return 0.0

    def drain(self) -> None:
        """Take no new requests; those under way go on."""
        self.is_draining = True

    def cancel_all(self, reason: Refusal) -> None:
        """Cancel every request under way."""
        for request in list(self.active):
            request.cancel(reason)

    def _retry_after_s(self) -> int:
        """From 1 to 60 s."""
        return min(60, max(1, round(self._mean_request_s())))
