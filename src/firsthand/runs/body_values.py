"""Bounds the JSON values of a stored body by its packed size: `[],` a million times packs into 3 kB and decodes to 27 times
its length."""

from __future__ import annotations

from firsthand.system.json_values import values_in

FREE_VALUES = 2_000_000
"""Values that a body may hold however small it packs."""
VALUES_A_BYTE = 4
"""Values that it may hold beyond them for each packed byte; token ids and scores have less than two."""


def too_many_values(raw: bytes, packed_bytes: int) -> str | None:
    """The fault of a JSON text that holds more values than one of its packed size may; None if there is none."""
    most = max(FREE_VALUES, VALUES_A_BYTE * packed_bytes)
    if values_in(raw, most) <= most:
        return None
    return f"it holds more than {most:,} values in {packed_bytes:,} packed bytes"
