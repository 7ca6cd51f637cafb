"""Loads a benchmark's rows from a folder of the user's, `$FIRSTHAND_DATA`, our package, or the Hugging Face hub.

Every source goes through the same checks, and the result records its origin and SHA-256. The package holds small licensed
slices, so that a first run works offline. The hub is asked for rows, never for code, and only if `data` is `hub` or nothing
else is found.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from firsthand.errors import DataError, DownloadError, reason_of
from firsthand.hub.hf_repository import headers
from firsthand.hub.offline import expect_online
from firsthand.message import Json
from firsthand.system.bounded_reply import ask
from firsthand.system.first_rows import most_rows
from firsthand.system.given_data import held
from firsthand.system.home import data_home
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.packed_text import lines_of, unpacked_gzip
from firsthand.system.plurals import count_of

HUB_ROWS = "https://datasets-server.huggingface.co/rows"
MAX_BYTES = 256 * 2**20
"""Size limit of a data file, unpacked or not; no file of ours comes near it."""
PAGE_ROWS = 100
MAX_PAGE_BYTES, MAX_PAGE_VALUES, MAX_PAGE_S = 32 * 2**20, 2_000_000, 300.0
UNCONDITIONAL = 1_000_000
"""First number of OLMES's documents that repeat another without its question."""


@dataclass(frozen=True)
class Source:
    """A benchmark's data file, and its names in each location."""

    path: str
    """Path in a data folder, such as `math/gsm8k_test.jsonl`; the bare file name is found too."""
    rows: int
    """Number of rows of the whole file."""
    licence: str
    dataset: str
    """Name on the hub, with `config` and `split`; empty if it is not there."""
    config: str
    split: str
    from_hub: Callable[[Json], Json]
    """Converts a hub row to a row of our file."""
    also: tuple[str, ...] = ()
    """Other files with the same rows, searched after `path`."""


@dataclass(frozen=True)
class Rows:
    """Rows that were read, with their origin."""

    rows: tuple[Json, ...]
    origin: str
    """Description for the protocol: `packaged slice, 100 of 1,319 items`."""
    path: Path
    sha256: str
    lines: tuple[int, ...] = ()
    """The line of each row, if not every line is a row."""

    def where(self, index: int) -> str:
        """Return file and line of a row, for errors. Blank lines are not allowed, so rows are lines."""
        return f"{self.path}, line {self.lines[index] if self.lines else index + 1}"

    def expect_ids(self, key: str) -> None:
        """DataError with both places if two rows have one id, of which a run would keep one task."""
        first: dict[str, int] = {}
        for index, row in enumerate(self.rows):
            id = str(row.get(key))
            if (before := first.setdefault(id, index)) != index:
                raise DataError(
                    f"{self.where(index)}: the {key} {id!r:.100} is also that of {self.where(before)}: ids must differ"
                )


def load(source: Source, data: str = "") -> Rows:
    """Return the rows from the first location that has them: folder (or file) `data`, `$FIRSTHAND_DATA`, package, hub.

    `data` may also be `hub` or `packaged` to choose those. DataError if a given folder lacks the file.
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
        rows = read(packaged, source, "packaged slice")
        is_whole = len(rows.rows) >= source.rows
        return replace(rows, origin=rows.origin.replace("packaged slice", "packaged")) if is_whole else rows
    if data == "packaged":
        raise DataError(f"no slice of {name} is packaged: give data=FOLDER, or data=hub to fetch it")
    return read(fetch(source), source, f"Hugging Face hub, {source.dataset}")


def load_beside(source: Source, data: str = "") -> Rows:
    """Return the rows of another split than the tested one, such as that of worked examples; as `load` does.

    A file `data` holds the tested rows alone: the other split is searched beside it, then as without `data`.
    """
    if not is_file(data):
        return load(source, data)
    found = beside(data, source.path, *source.also)
    return load(source) if found is None else read(found, source, "beside the data file")


def is_file(data: str) -> bool:
    """True if `data` names one file, so that it holds the rows of one split."""
    return data not in ("", "hub", "packaged") and Path(data).expanduser().is_file()


def beside(data: str, *paths: str) -> Path | None:
    """Return the first of these files that lies beside the file `data`, and is another one."""
    given = Path(data).expanduser()
    found = find(given.parent, *paths)
    return None if found is None or found.samefile(given) else found


def read(path: Path, source: Source, origin: str) -> Rows:
    """Read a .jsonl or .jsonl.gz file; DataError with file and line if one is not a JSON object."""
    raw = contents(path)
    try:
        text = (unpacked_gzip(raw, path, MAX_BYTES) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): give a .jsonl file") from None
    lines, rows = _documents(tuple(_rows(text, path)))
    if not rows:
        raise DataError(f"{path} has no rows: is it truncated?")
    partial = f"{len(rows):,} of {source.rows:,} items" if len(rows) < source.rows else count_of(len(rows), "item", ",")
    return Rows(rows, f"{origin}, {partial}", path, hashlib.sha256(raw).hexdigest(), lines)


def contents(path: Path) -> bytes:
    """Return the file's bytes; DataError if it is larger than `MAX_BYTES`."""
    try:
        with open_ordinary(path) as file:
            found = file.read(MAX_BYTES + 1)
        if len(found) > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB: is it the right file?")
        return found
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def located(path: str, data: str, *others: str) -> Path | None:
    """Return the file in the folder `data`, or in `$FIRSTHAND_DATA` if `data` is empty; None to take it from the hub."""
    if data not in ("", "hub", "packaged"):
        return in_folder(Path(data).expanduser(), "data", path, *others)
    folder = os.environ.get("FIRSTHAND_DATA") if not data else None
    return find(Path(folder).expanduser(), path, *others) if folder else None


def _documents(rows: tuple[Json, ...]) -> tuple[tuple[int, ...], tuple[Json, ...]]:
    """Return (lines, rows); in a file of OLMES requests each document occurs once, with its line."""
    if not rows or not all(isinstance(row.get("doc"), dict) and "request" in row for row in rows):
        return (), rows
    found: dict[str, tuple[int, Json]] = {}
    for line, row in enumerate(rows, 1):
        if not isinstance(number := row.get("doc_id"), int) or number < UNCONDITIONAL:
            found.setdefault(str(number), (line, row["doc"]))
    return tuple(line for line, _ in found.values()), tuple(doc for _, doc in found.values())


def text_field(row: Json, key: str, where: str) -> str:
    """Return the text under `key`; DataError with `where` if there is none."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        held = f"holds {str(value)[:60]!r}" if key in row else "is missing"
        raise DataError(f"{where}: the field {key!r} {held}, and text was expected")
    return value


def fetch(source: Source, *, url: str = HUB_ROWS) -> Path:
    """Return the file of a hub dataset, fetched page by page on first use and kept in `data` under our home folder."""
    path = data_home() / "data" / source.path
    if path.is_file():
        return path
    if not source.dataset:
        raise DataError(
            f"{source.path} is neither on this machine nor on the hub: put it in a folder and give data=FOLDER"
        )
    lines = [json.dumps(row, ensure_ascii=False) for row in _hub_rows(source, url)]
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)  # atomic: an interrupted fetch leaves no partial file
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def fetch_unkept(source: Source, *, url: str = HUB_ROWS, page_rows: int = PAGE_ROWS) -> tuple[Json, ...]:
    """Return the rows of a hub dataset that must not be stored in plain text: fetched each time, never written to disk.

    `$HF_TOKEN` is sent, since such datasets are gated.
    """
    return tuple(_hub_rows(source, url, headers=headers(), page_rows=page_rows))


def _hub_rows(
    source: Source, url: str, *, headers: dict[str, str] | None = None, page_rows: int = PAGE_ROWS
) -> Iterator[Json]:
    import httpx

    expect_online(url, source.path, f"give data=FOLDER that holds it, or fetch {source.dataset} with a network")
    query = {"dataset": source.dataset, "config": source.config, "split": source.split}
    offset, total = 0, None
    with httpx.Client(timeout=30, follow_redirects=True, headers=headers) as client:
        while total is None or offset < total:
            body = _page(client, url, {**query, "offset": str(offset), "length": str(page_rows)}, source)
            if flaw := _flaw(body, offset, page_rows, total, 10 * source.rows):
                raise DownloadError(f"{source.dataset}: the hub's answer at row {offset} {flaw}; try again later")
            rows, total = body["rows"], body["num_rows_total"]
            for each in rows:
                try:
                    yield source.from_hub(each["row"])
                except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                    raise DataError(
                        f"{source.dataset} on the hub, row {offset}: {error!r}: not the expected columns"
                    ) from None
            offset += len(rows)


def _flaw(body: Json, offset: int, length: int, total: int | None, most: int) -> str:
    """Return what is wrong with a page that was asked for from row `offset` on; empty if it may be kept.

    A cache that ignores the query answers with another page, and the hub may leave off rows, or the ends of cells, of large
    sets. `total` is what earlier pages said that the set has.
    """
    rows, count = body.get("rows"), body.get("num_rows_total")
    if type(count) is not int or not 0 < count <= most:
        return "is not a page of rows"
    if not (isinstance(rows, list) and rows and all(isinstance(each, dict) and "row" in each for each in rows)):
        return "is not a page of rows"
    if total is not None and count != total:
        return f"says that the set has {count:,} rows, and an earlier one said {total:,}"
    if len(rows) > length or offset + len(rows) > count:
        return "holds more rows than there should be"
    if [each.get("row_idx") for each in rows] != list(range(offset, offset + len(rows))):
        return "holds other rows than were asked for"
    if body.get("partial"):
        return "is of a part of the set"
    if any(each.get("truncated_cells") for each in rows):
        return "has cells whose ends are left off"
    return ""


def _page(client: Any, url: str, query: dict[str, str], source: Source) -> Json:
    import httpx

    hint = f"check the connection, or give data=FOLDER that holds {source.path}"
    try:
        request = client.build_request("GET", url, params=query)
        reply = ask(client, request, max_bytes=MAX_PAGE_BYTES, max_values=MAX_PAGE_VALUES, within_s=MAX_PAGE_S)
        if reply.status in (401, 403):
            raise DownloadError(
                f"{source.dataset}: the hub answered {reply.status}: agree to the set's terms on its page "
                f"there, and set HF_TOKEN; or {hint.rpartition(', or ')[2]}"
            )
        if reply.status != 200:
            raise DownloadError(f"{source.dataset}: the hub answered {reply.status}; {hint}")
        body = reply.json()
    except DataError as error:
        raise DownloadError(f"{source.dataset}: the hub's answer is no page of rows: {error}") from None
    except (httpx.HTTPError, ValueError) as error:
        raise DownloadError(
            f"{source.dataset}: {type(error).__name__} from the hub ({reason_of(error)}); {hint}"
        ) from None
    if not isinstance(body, dict):
        raise DownloadError(f"{source.dataset}: the hub's answer is not a JSON object; {hint}")
    return body


def find(folder: Path, *paths: str) -> Path | None:
    """Return the first of these files in a data folder, by its path or bare name, gzipped or not."""
    for path in paths:
        for name in (path, Path(path).name):
            for candidate in (folder / name, folder / f"{name}.gz"):
                if candidate.is_file():
                    return held(candidate, folder)
    return None


def in_folder(folder: Path, option: str, *paths: str) -> Path:
    """Return `folder` if it is a file, else the first of these files in it; DataError if there is none."""
    if folder.is_file():
        return folder
    found = find(folder, *paths)
    if found is None:
        names = dict.fromkeys([*paths, Path(paths[0]).name])
        has = f"neither {' nor '.join(names)}" if len(names) > 1 else f"no {paths[0]}"
        raise DataError(f"{option} is {str(folder)!r}, which has {has}: put the file there")
    return found


def _rows(text: str, path: Path) -> Iterator[Json]:
    if not text.strip():
        return
    for number, line in enumerate(islice(lines_of(text.rstrip()), most_rows.get()), 1):
        line = line.removesuffix("\n")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{path}, line {number}: not JSON: {line[:60]!r}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object was expected, not {line[:60]!r}")
        yield row


def packed(lines: list[str]) -> bytes:
    """Return the lines as a reproducible gzip file; the packaged slices were made with it."""
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
