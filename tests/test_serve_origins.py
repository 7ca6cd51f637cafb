"""Web pages of other sites are refused at every door of a server without keys, and nobody else is."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from exchanges_by_hand import HOST, Exchanges, start
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.admission.server_admission import Admission


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await start(send)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "http://evil.example"},
        {"origin": "https://127.0.0.1.evil.example"},
        {"origin": "http://evil.example:8080", "sec-fetch-site": "same-origin"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_web_page_of_another_site_is_refused(method: str, fields: dict[str, str]) -> None:
    served = Exchanges(_app, work_methods=frozenset({"POST"}), free_requests=frozenset({"GET /a/x"}))
    status, message, _ = served.refused(method=method, headers=_headers(fields))
    page = f"a web page of {fields['origin']!r}" if "origin" in fields else "a web page of another site"
    assert (status, message) == (
        403, f"{page} asks: without API keys only pages of this machine may; give --keys or --allow-host",
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://[::1]:8000"},
        {"origin": "chrome-extension://abcdefgh", "sec-fetch-site": "none"},
        {"origin": "https://chat.example"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_programs_pages_of_this_machine_extensions_and_allowed_hosts_are_served(fields: dict[str, str]) -> None:
    admission = Admission(settings=AdmissionSettings(allow_host=("127.0.0.1", "chat.example")))
    assert Exchanges(_app, admission=admission).ask(headers=_headers(fields))[0] == 201


def test_with_keys_the_key_decides_and_a_header_that_comes_twice_is_refused() -> None:
    keyed = Admission(Keys((Client("ann", ClientLimits(), hashlib.sha256(b"0123456789abcdef").digest()),)))
    headers = (*_headers({"origin": "https://chat.example"}), (b"authorization", b"Bearer 0123456789abcdef"))
    assert Exchanges(_app, admission=keyed).ask(headers=headers)[0] == 201
    twice = (*_headers({"origin": "http://localhost"}), (b"origin", b"http://evil.example"))
    assert Exchanges(_app).refused(headers=twice)[:2] == (400, "the header origin comes twice")


def _headers(fields: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return (HOST, *((name.encode(), value.encode()) for name, value in fields.items()))
