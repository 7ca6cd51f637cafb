"""An item of AgentBench's database tasks: its table, its question, and the answer or the hash that is expected."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from firsthand.errors import DataError
from firsthand.message import Json

WRITES = ("INSERT", "UPDATE", "DELETE")
MAX_CELLS = 200_000


@dataclass(frozen=True)
class TableItem:
    """A table as text cells, and what is asked about it."""

    kind: str
    """`INSERT` and the like, or the kind of question, such as `counting`."""
    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    label: tuple[str, ...]
    """The expected answer; of a write, the published statement."""
    md5: str = ""
    """The published hash of the table after the write."""

    @property
    def is_write(self) -> bool:
        """True if the table is judged, and not the answer."""
        return self.kind in WRITES

    def to_json(self) -> Json:
        """The item as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(body: Json) -> TableItem:
        """The item that `to_json` wrote."""
        rows = tuple(tuple(row) for row in body["rows"])
        return TableItem(**{**body, "columns": tuple(body["columns"]), "rows": rows, "label": tuple(body["label"])})


def read_item(row: Json, where: str) -> TableItem:
    """The item of a row of dbbench's files; DataError that names the field at fault."""
    kind = _checked(row, "type", where, lambda value: isinstance(value, list) and value and isinstance(value[0], str))[
        0
    ]
    table = _checked(
        row, "table", where, lambda value: isinstance(value, dict) and isinstance(value.get("table_name"), str)
    )
    info = table.get("table_info")
    columns: list[Any] = [each.get("name") for each in _listed(info, "columns", where) if isinstance(each, dict)]
    rows = _listed(info, "rows", where)
    if not columns or not all(isinstance(name, str) for name in columns) or len(set(columns)) < len(columns):
        raise DataError(f"{where}: the columns are {columns!r:.100}, and different names were expected")
    if len(rows) * len(columns) > MAX_CELLS or not all(
        isinstance(each, list) and len(each) == len(columns) for each in rows
    ):
        raise DataError(f"{where}: the rows are not lists of {len(columns)} cells, at most {MAX_CELLS} in all")
    label = _checked(row, "label", where, lambda value: isinstance(value, list) and value)
    md5 = ""
    if kind in WRITES:
        published = _checked(row, "answer_md5", where, lambda value: isinstance(value, str))
        md5 = published.strip("[](),'\" ")
    cells = tuple(tuple(str(cell) for cell in each) for each in rows)
    return TableItem(kind, table["table_name"], tuple(columns), cells, tuple(map(str, label)), md5)


def table_md5(rows: Iterable[Sequence[str | None]]) -> str:
    """The hash of a table's rows in any order, as the paper's MySQL query computes it.

    Of each row the first 5 hex digits of the MD5 of its cells joined by commas, without NULLs; of these, sorted and joined
    by commas, the MD5.
    """
    hashes = sorted(_md5(",".join(cell for cell in row if cell is not None))[:5] for row in rows)
    return _md5(",".join(hashes))


def same_rows(rows: Iterable[Sequence[str | None]], others: Iterable[Sequence[str | None]]) -> bool:
    """True if the rows are equal cell by cell, in any order, each as often; a NULL equals a NULL alone."""
    return Counter(map(tuple, rows)) == Counter(map(tuple, others))


def is_right(answer: Sequence[Any], label: Sequence[str]) -> bool:
    """True if an answer is right by the paper's rule: one value as a number or as text, several as sets."""
    if len(answer) == 1 and len(label) == 1:
        if type(answer[0]) not in (str, int, float):  # float() takes True and b"1" for 1
            return False
        try:
            return float(answer[0]) == float(label[0])
        except (ValueError, OverflowError):
            return bool(answer[0] == label[0])
    try:
        return set(answer) == set(label)
    except TypeError:  # a list inside the answer
        return False


def is_exact(answer: Sequence[Any], label: Sequence[str]) -> bool:
    """True if an answer's values are those of the label as text, in any order and each as often."""
    return Counter(map(str, answer)) == Counter(label)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _checked(row: Json, field: str, where: str, is_good: Any) -> Any:
    value = row.get(field)
    if not is_good(value):
        raise DataError(f"{where}: the field {field!r} holds {str(value)[:60]!r}, which no item of dbbench does")
    return value


def _listed(info: Any, field: str, where: str) -> list[Any]:
    value = info.get(field) if isinstance(info, dict) else None
    if not isinstance(value, list):
        raise DataError(f"{where}: the table's {field} are {str(value)[:60]!r}, and a list was expected")
    return value
