"""Where a benchmark's data comes from: a folder of the user's, `$FIRSTHAND_DATA`, our package, or the Hugging Face hub.

Each source is read with the same checks, and what was read says where it came from and its SHA-256. The package holds small
licensed slices, so that a first run works offline; the hub is asked for rows, never for code, and only if `data` is `hub` or
nothing else is found.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import DataError, DownloadError
from firsthand.hub.hf_repository import headers
from firsthand.message import Json
from firsthand.system.home import data_home

HUB_ROWS = "https://datasets-server.huggingface.co/rows"
MAX_BYTES = 256 * 2**20
"""No file of ours is nearly as large, unpacked or not."""
PAGE_ROWS = 100
MAX_PAGE_BYTES = 32 * 2**20
UNCONDITIONAL = 1_000_000
"""OLMES counts from here the documents that it asks again without the question."""


@dataclass(frozen=True)
class Source:
    """A benchmark's file: what it is called in each place."""

    path: str
    """In a data folder, such as `math/gsm8k_test.jsonl`; the bare file name is found there too."""
    rows: int
    """How many rows the whole file has."""
    licence: str
    dataset: str
    """On the hub: its name, configuration and split; empty if it is not there."""
    config: str
    split: str
    from_hub: Callable[[Json], Json]
    """A row of the hub as a row of our file."""
    also: tuple[str, ...] = ()
    """Other files with the same rows, looked for after `path`."""


@dataclass(frozen=True)
class Rows:
    """What was read, and from where."""

    rows: tuple[Json, ...]
    origin: str
    """In words, for the protocol: `packaged slice, 100 of 1,319 items`."""
    path: Path
    sha256: str
    lines: tuple[int, ...] = ()
    """The line of each row, where not each line is one."""

    def where(self, index: int) -> str:
        """File and line of a row, for errors. Blank lines are not allowed, so rows are lines."""
        return f"{self.path}, line {self.lines[index] if self.lines else index + 1}"


def load(source: Source, data: str = "") -> Rows:
    """The rows of the first source that has them: the folder (or file) `data`, `$FIRSTHAND_DATA`, our package, the hub.

    `data` may also be `hub` or `packaged` to ask for those. A folder that was named and lacks the file is a DataError.
    """
    name = Path(source.path).name
    if data not in ("", "hub", "packaged"):
        return read(in_folder(Path(data).expanduser(), "data", source.path, *source.also), source, "data folder")
    if not data and (folder := os.environ.get("FIRSTHAND_DATA")):
        found = find(Path(folder).expanduser(), source.path, *source.also)
        if found is not None:
            return read(found, source, "$FIRSTHAND_DATA")
    packaged = Path(__file__).parent.parent / "slices" / f"{name}.gz"
    if data != "hub" and packaged.is_file():
        return read(packaged, source, "packaged slice")
    if data == "packaged":
        raise DataError(f"no slice of {name} is packaged: give data=FOLDER, or data=hub to fetch it")
    return read(fetch(source), source, f"Hugging Face hub, {source.dataset}")


def read(path: Path, source: Source, origin: str) -> Rows:
    """The rows of a .jsonl or .jsonl.gz file; DataError naming file and line where one is no JSON object."""
    raw = contents(path)
    try:
        text = (_unpacked(raw, path) if path.suffix == ".gz" else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): give a .jsonl file") from None
    lines, rows = _documents(tuple(_rows(text, path)))
    if not rows:
        raise DataError(f"{path} holds no rows: is it truncated?")
    partial = f"{len(rows):,} of {source.rows:,} items" if len(rows) < source.rows else f"{len(rows):,} items"
    return Rows(rows, f"{origin}, {partial}", path, hashlib.sha256(raw).hexdigest(), lines)


def contents(path: Path) -> bytes:
    """What the file holds, as long as it is not absurdly much."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB: is it the right file?")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def located(path: str, data: str, *others: str) -> Path | None:
    """The file in the folder `data`, or in `$FIRSTHAND_DATA` if `data` is empty; None if it is to come from the hub."""
    if data not in ("", "hub", "packaged"):
        return in_folder(Path(data).expanduser(), "data", path, *others)
    folder = os.environ.get("FIRSTHAND_DATA") if not data else None
    return find(Path(folder).expanduser(), path, *others) if folder else None


def _documents(rows: tuple[Json, ...]) -> tuple[tuple[int, ...], tuple[Json, ...]]:
    """The rows as they are; of a file of requests, as OLMES keeps them, each document once, with its line."""
    if not rows or not all(isinstance(row.get("doc"), dict) and "request" in row for row in rows):
        return (), rows
    found: dict[str, tuple[int, Json]] = {}
    for line, row in enumerate(rows, 1):
        if not isinstance(number := row.get("doc_id"), int) or number < UNCONDITIONAL:
            found.setdefault(str(number), (line, row["doc"]))
    return tuple(line for line, _ in found.values()), tuple(doc for _, doc in found.values())


def text_field(row: Json, key: str, where: str) -> str:
    """The text under `key`; DataError saying where if there is none."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the field {key!r} holds {str(value)[:60]!r}, and text was expected")
    return value


def fetch(source: Source, *, url: str = HUB_ROWS) -> Path:
    """The file of a hub dataset, fetched row by row on first use and kept in `data` under our home folder."""
    path = data_home() / "data" / source.path
    if path.is_file():
        return path
    if not source.dataset:
        raise DataError(f"{source.path} is not here, and not on the hub: put it into a folder and give data=FOLDER")
    lines = [json.dumps(row, ensure_ascii=False) for row in _hub_rows(source, url)]
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)  # whole or not at all: an interrupted fetch leaves no half file
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def fetch_unkept(source: Source, *, url: str = HUB_ROWS, page_rows: int = PAGE_ROWS) -> tuple[Json, ...]:
    """The rows of a hub dataset that is not to lie about in plain text: fetched anew each time, kept nowhere.

    `$HF_TOKEN` is sent along, for such sets are given to those who have agreed to their terms.
    """
    return tuple(_hub_rows(source, url, headers=headers(), page_rows=page_rows))


def _hub_rows(
    source: Source, url: str, *, headers: dict[str, str] | None = None, page_rows: int = PAGE_ROWS
) -> Iterator[Json]:
    import httpx

    query = {"dataset": source.dataset, "config": source.config, "split": source.split}
    offset, total = 0, 1
    with httpx.Client(timeout=30, follow_redirects=True, headers=headers) as client:
        while offset < total:
            body = _page(client, url, {**query, "offset": str(offset), "length": str(page_rows)}, source)
            rows, count = body.get("rows"), body.get("num_rows_total", 0)
            good = isinstance(rows, list) and isinstance(count, int) and 0 < count <= 10 * source.rows
            if not good or not rows or not all(isinstance(each, dict) and "row" in each for each in rows):
                raise DownloadError(
                    f"{source.dataset}: the hub's answer at row {offset} is not a page of rows; try again later"
                )
            for each in rows:
                try:
                    yield source.from_hub(each["row"])
                except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                    raise DataError(
                        f"{source.dataset} on the hub, row {offset}: {error!r}: not the expected columns"
                    ) from None
            offset, total = offset + len(rows), count


def _page(client: Any, url: str, query: dict[str, str], source: Source) -> Json:
    import httpx

    hint = f"check the connection, or give data=FOLDER that holds {source.path}"
    try:
        with client.stream("GET", url, params=query) as response:
            if response.status_code in (401, 403):
                raise DownloadError(
                    f"{source.dataset}: the hub answered {response.status_code}: agree to the set's terms on its page "
                    f"there, and set HF_TOKEN; or {hint.rpartition(', or ')[2]}"
                )
            if response.status_code != 200:
                raise DownloadError(f"{source.dataset}: the hub answered {response.status_code}; {hint}")
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) > MAX_PAGE_BYTES:
                    raise DownloadError(
                        f"{source.dataset}: the hub sent more than {MAX_PAGE_BYTES >> 20} MiB for one page"
                    )
        body = json.loads(received)
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise DownloadError(f"{source.dataset}: {type(error).__name__} from the hub ({error}); {hint}") from None
    if not isinstance(body, dict):
        raise DownloadError(f"{source.dataset}: the hub's answer is no JSON object; {hint}")
    return body


def find(folder: Path, *paths: str) -> Path | None:
    """The first of these files in a data folder: at its path, or by its bare name, packed or not."""
    for path in paths:
        for name in (path, Path(path).name):
            for candidate in (folder / name, folder / f"{name}.gz"):
                if candidate.is_file():
                    return candidate
    return None


def in_folder(folder: Path, option: str, *paths: str) -> Path:
    """The file itself if one was named, or the first of these in the folder; DataError if there is none."""
    if folder.is_file():
        return folder
    found = find(folder, *paths)
    if found is None:
        names = " nor ".join([*paths, Path(paths[0]).name])
        raise DataError(f"{option} is {str(folder)!r}, which has neither {names}: put the file there")
    return found


def _unpacked(raw: bytes, path: Path) -> bytes:
    """What the gzip file holds, as long as it is not absurdly much."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        out = unpacker.decompress(raw, MAX_BYTES)
    except zlib.error:
        raise DataError(f"{path} is not a whole gzip file: fetch it again") from None
    if unpacker.unconsumed_tail:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB: is it the right file?")
    if not unpacker.eof:
        raise DataError(f"{path} is not a whole gzip file: fetch it again")
    return out


def _rows(text: str, path: Path) -> Iterator[Json]:
    if not text.strip():
        return
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}, line {number}: not JSON: {line[:60]!r}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object was expected, not {line[:60]!r}")
        yield row


def packed(lines: list[str]) -> bytes:
    """The lines as a gzip file that is the same every time: how the packaged slices were made."""
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
