"""Bodies of a run's database: as many values as their packed size allows, counted before they are decoded."""

from __future__ import annotations

import hashlib
import random
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.runs.body_values import FREE_VALUES, VALUES_A_BYTE, too_many_values
from firsthand.runs.database import Database, put


def test_values_are_bounded_by_the_packed_size_and_a_free_number() -> None:
    free = b"0" + b",0" * FREE_VALUES
    assert too_many_values(free, 1) is None and too_many_values(free, FREE_VALUES // VALUES_A_BYTE) is None
    more = free + b",0"
    assert too_many_values(more, 10) == f"it holds more than {FREE_VALUES:,} values in 10 packed bytes"
    assert too_many_values(more, FREE_VALUES // VALUES_A_BYTE) is not None
    assert too_many_values(more, FREE_VALUES // VALUES_A_BYTE + 1) is None
    assert too_many_values(b'["' + b",[{" * FREE_VALUES + b'"]', 10) is None, "a text is one value"


@pytest.mark.slow
def test_a_body_of_brackets_is_neither_read_nor_written(tmp_path: Path) -> None:
    raw = b"[" + b"[]," * FREE_VALUES + b"[]]"
    packed, digest = zlib.compress(raw, 9), hashlib.sha256(raw).digest()
    assert len(packed) < 10_000
    with closing(Database(tmp_path / "run.sqlite", create=True)) as database:
        with database.write() as connection:
            connection.execute("INSERT INTO bodies VALUES (?, ?)", (digest, packed))
        with pytest.raises(StoreError, match=r"a body cannot be read: it holds more than 2,000,000 values in"):
            database.get(digest)
        for exact in (True, False):
            with (
                pytest.raises(StoreError, match="a body cannot be stored: it holds more"),
                database.write() as connection,
            ):
                put(connection, [0] * (FREE_VALUES + 2), exact=exact)
        assert database.read("SELECT count(*) FROM bodies") == [(1,)]


@pytest.mark.slow
def test_token_ids_and_scores_of_a_long_attempt_are_kept(tmp_path: Path) -> None:
    draw = random.Random(0)
    count = 100_000
    ids, scores = [draw.randrange(150_000) for _ in range(count)], [round(-draw.random(), 6) for _ in range(count)]
    with closing(Database(tmp_path / "run.sqlite", create=True)) as database:
        with database.write() as connection:
            digest = put(connection, {"ids": ids, "scores": scores, "mask": [1] * count, "text": ",[{" * 10**6})
        assert database.get(digest)["ids"] == ids
        ((packed,),) = database.read("SELECT length(zlib) FROM bodies")
    assert 3 * count < VALUES_A_BYTE * packed, "longer ones are kept too"
