"""Look at the file of a memory, forget items, move them, and count how much of it is junk."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from firsthand.config import refuse_given
from firsthand.errors import ConfigError, DataError, UnknownName, reason_of
from firsthand.message import Json
from firsthand.system.json_values import TooManyValues, decoded_line
from firsthand.system.new_file import write_new
from firsthand.system.option_spec import keywords_of
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.packed_stream import filled_lines
from firsthand.system.packed_text import lines_of
from firsthand.system.plurals import count_of
from firsthand.system.terminal import print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.memories.keeping.item_file import ItemFile, ItemTimes
    from firsthand.memories.keeping.kept_item import KeptItem
    from firsthand.memories.keeping.stored_memory import StoredMemory
    from firsthand.memory import MemoryItem

EXAMPLES = """
firsthand memory list facts.db                            # owners and kinds, then the newest items
firsthand memory list facts.db --owner ann --query "where does Ann live"
firsthand memory show facts.db 1f0c9a2b7d3e4f50           # one item, with its provenance
firsthand memory forget facts.db 1f0c9a2b7d3e4f50         # deleted for good
firsthand memory export facts.db --out facts.jsonl        # and `import` reads it again, edited or not
firsthand memory junk facts.db told.jsonl                 # precision, recall, duplicates, self-fed copies
"""
Action = Literal["list", "show", "forget", "export", "import", "junk"]


@dataclass(frozen=True)
class Config:
    """The action, and its items."""

    action: str = field(default="", metadata={"positional": True})
    """list, show, forget, export, import or junk."""
    words: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """The file of the memory; then the ids to show or forget, or the .jsonl file to import or to compare with."""
    owner: str | None = None
    """Only this owner's items; all owners by default; import stores items without an owner by default."""
    kind: str | None = None
    """Only items of this kind, such as semantic; import needs it where the file does not say it."""
    query: str = ""
    """With list: the items that fit these words, best first, instead of the newest."""
    limit: int = 50
    """With list: at most this many items of each owner and kind."""
    out: str | None = None
    """With export: the .jsonl file to write; without it, lines are printed."""
    salvage: bool = False
    """With export: read what can be read of a damaged file."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ConfigError(f"action is {self.action!r}: give one of {', '.join(get_args(Action))}, then the file")
        if not self.words:
            raise ConfigError(
                f"memory {self.action} needs the file of a memory, as in: firsthand memory {self.action} facts.db"
            )
        wanted = {"show": (2, 1_000), "forget": (2, 1_000), "import": (2, 2), "junk": (2, 2)}.get(self.action, (1, 1))
        if not wanted[0] <= len(self.words) <= wanted[1]:
            more = {"show": " ID", "forget": " ID...", "import": " ITEMS.jsonl", "junk": " FACTS.jsonl"}.get(
                self.action, ""
            )
            raise ConfigError(f"memory {self.action} takes other words: firsthand memory {self.action} FILE{more}")
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")


def main(config: Config) -> int:
    """Do the action."""
    from firsthand.memories.keeping.item_file import ItemFile

    refuse_unused(config)
    is_import = config.action == "import"
    read = _read_lines(config) if is_import else []  # before the file is made, which is anybody's once it is there
    file = ItemFile(Path(config.words[0]), create=is_import, salvage=config.salvage)
    try:
        if is_import:
            return _import(read, file)
        act = {"list": _list, "show": _show, "forget": _forget, "export": _export, "junk": _junk}
        return act[config.action](config, file)
    finally:
        file.close()


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect on the action."""
    if config.action != "list":
        refuse_given(config, {"query", "limit"}, f"it is for list, not for {config.action}")
    if config.action != "export":
        refuse_given(config, {"out", "salvage"}, f"it is for export, not for {config.action}")
    if config.action in ("forget", "export", "import"):
        refuse_given(config, {"json"}, f"it is for list, show and junk, not for {config.action}")


def _scopes(config: Config, file: ItemFile) -> list[tuple[str, str]]:
    """The owners and kinds that the flags leave."""
    return [(o, k) for o, k in file.names() if config.owner in (None, o) and config.kind in (None, k)]


def _items(config: Config, file: ItemFile) -> Iterator[tuple[str, str, KeptItem]]:
    """Every item of these owners and kinds."""
    from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory

    for owner, kind in _scopes(config, file):
        for kept in StoredMemory(KeepingPolicy(kind), file, owner=owner).all():
            yield owner, kind, kept


def _row(owner: str, kind: str, kept: KeptItem) -> Json:
    from firsthand.memories.keeping.kept_item import shown_time

    times = {"valid": shown_time(kept.valid_s), "stored": shown_time(kept.stored_s)}
    return {"owner": owner, "kind": kind, **kept.item.to_json(), **times}


def _line(owner: str, kind: str, kept: KeptItem) -> str:
    """The item as a line that import reads: with its exact times."""
    from firsthand.memories.keeping.kept_item import exact_time

    times = {"valid": exact_time(kept.valid_s), "stored": exact_time(kept.stored_s)}
    return f"{json.dumps(_row(owner, kind, kept) | times, ensure_ascii=True)}\n"


def _list(config: Config, file: ItemFile) -> int:
    from firsthand.memories.keeping.recall_request import RecallRequest
    from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory

    sizes = {(owner, kind): size for owner, kind, size in file.scopes()}
    rows = []
    for owner, kind in _scopes(config, file):
        asked = RecallRequest(config.query, config.limit, history=True)
        found = StoredMemory(KeepingPolicy(kind), file, owner=owner).found(asked)
        rows += [_row(owner, kind, kept) for kept in found]
    if config.json:
        scopes = [{"owner": o, "kind": k, "items": s.items, "bytes": s.size_bytes} for (o, k), s in sizes.items()]
        print_as_json({"scopes": scopes, "items": rows})
        return 0
    name = Path(config.words[0]).name
    table = [[owner or "-", kind, f"{s.items:,}", f"{s.size_bytes:,}"] for (owner, kind), s in sizes.items()]
    print_table(name, ["owner", "kind", "items", "bytes"], table, right=("items", "bytes"))
    shown = [[row["id"], row["owner"] or "-", row["valid"], row["text"].replace("\n", " ")[:160]] for row in rows]
    print_table(count_of(len(rows), "item", ","), ["id", "owner", "time", "text"], shown)
    return 0


def _named(config: Config, file: ItemFile) -> list[tuple[str, str, KeptItem]]:
    """The items of the ids that were given. UnknownName for one that is not there."""
    found = []
    for id in config.words[1:]:
        here = []
        for owner, kind in _scopes(config, file):
            kept = file.with_id(file.scope(owner, kind), id)
            here += [(owner, kind, kept)] if kept is not None else []
        if not here:
            raise UnknownName(
                f"no item {id!r} in {config.words[0]}: `firsthand memory list {shlex.quote(config.words[0])}` shows all"
            )
        found += here
    return found


def _show(config: Config, file: ItemFile) -> int:
    for each in _named(config, file):
        print_as_json(_row(*each))
    return 0


def _forget(config: Config, file: ItemFile) -> int:
    named = _named(config, file)
    for owner, kind, kept in named:
        file.remove(owner, kind, kept.item.id)
    file.checkpoint()
    print(f"forgot {count_of(len(named), 'item')}")
    return 0


def _export(config: Config, file: ItemFile) -> int:
    """Write every item as a line, those of an owner and kind in an order of which an import leaves the same ones holding."""
    from firsthand.memories.keeping.item_age import in_order_of_import

    lost: list[int] = []
    found: dict[tuple[str, str], list[KeptItem]] = {}
    if config.salvage:
        found = {scope: list(file.salvage(*scope, lost.append)) for scope in _scopes(config, file)}
    else:
        for owner, kind, kept in _items(config, file):
            found.setdefault((owner, kind), []).append(kept)
    lines = "".join(_line(*scope, kept) for scope in sorted(found) for kept in in_order_of_import(found[scope]))
    if config.out is None:
        sys.stdout.write(lines)
    else:
        write_new(Path(config.out), lines)
    told = count_of(lines.count("\n"), "item", ",")
    misses = f"; {count_of(len(set(lost)), 'place')} could not be read" if lost else ""
    print(f"exported {told}{misses}", file=sys.stderr)
    return 0


class _ReadLine(NamedTuple):
    """An item to import: its owner and kind, and a memory of these."""

    owner: str
    kind: str
    memory: StoredMemory
    item: MemoryItem
    times: ItemTimes | None


def _import(lines: Sequence[_ReadLine], file: ItemFile) -> int:
    """Store the items of lines, with their times where they have them. Nothing is deleted for them."""
    added = 0
    for owner, kind, memory, item, times in lines:
        added += file.put(owner, kind, item, memory.policy.key_of(item), None, times=times)
    print(f"imported {count_of(added, 'new item', ',')}")
    _tell_of_bounds(file, {id(line.memory): line.memory for line in lines}.values())
    return 0


def _read_lines(config: Config) -> list[_ReadLine]:
    """The items of a .jsonl file in the order of storing. DataError or ConfigError for the first line that is wrong."""
    from firsthand import catalog
    from firsthand.memories.keeping.stored_memory import StoredMemory
    from firsthand.memory import MemoryItem

    found: list[_ReadLine] = []
    made: dict[tuple[str, str], StoredMemory] = {}
    batch = 1 + secrets.randbits(62)
    for number, row in _in_order_of_storing([*_lines(Path(config.words[1]))]):
        owner = config.owner if config.owner is not None else str(row.get("owner", ""))
        kind, where = str(config.kind or row.get("kind") or ""), f"{config.words[1]}, line {number}"
        text, provenance = row.get("text"), row.get("provenance", {})
        if not isinstance(text, str) or not isinstance(provenance, dict) or not kind:
            raise DataError(
                f"{where}: text, provenance (an object) and kind were expected; --kind gives the kind of all"
            )
        if config.kind is None and kind not in catalog.names("memory"):  # a file's lines run no file that they name
            raise DataError(f"{where}: the kind is {kind!r:.80}: the name of an installed memory was expected")
        if (owner, kind) not in made:
            make = catalog.find("memory", kind)
            memory = make(owner=owner) if "owner" in keywords_of(make) else None
            if not isinstance(memory, StoredMemory):
                raise ConfigError(
                    f"{where}: the kind {kind} keeps no file: give semantic, episodic or another one that does"
                )
            made[owner, kind] = memory
        item = MemoryItem.of(text, provenance)
        made[owner, kind].admit(item)
        found.append(_ReadLine(owner, kind, made[owner, kind], item, _times(row, where, batch)))
    return found


def _in_order_of_storing(lines: list[tuple[int, Json]]) -> list[tuple[int, Json]]:
    """The lines as they are, or turned round if all have times to the second: an export until 0.21 began with the newest."""
    shown = [row.get("stored") for _, row in lines]
    return lines[::-1] if all(isinstance(each, str) and each and "." not in each for each in shown) else lines


def _times(row: Json, where: str, batch: int) -> ItemTimes | None:
    """The times of an exported line, none of them after now; None for a line without them. DataError for other texts."""
    from firsthand.memories.keeping.item_file import ItemTimes
    from firsthand.memories.keeping.kept_item import seconds_of

    now_s = round(time.time(), 6)
    given = {
        name: row[name] for name in ("valid", "stored") if type(row.get(name)) in (str, int, float) and row[name] != ""
    }
    if not given:
        return None
    try:
        seconds = {name: min(seconds_of(each), now_s) for name, each in given.items()}
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from None
    stored_s = seconds.get("stored", now_s)
    return ItemTimes(seconds.get("valid", stored_s), stored_s, batch)


def _tell_of_bounds(file: ItemFile, memories: Iterable[StoredMemory]) -> None:
    """Say which memories hold more now than they do by default: the next write to such a one deletes the oldest items."""
    for memory in memories:
        size, most = file.size(file.scope(memory.owner, memory.name)), memory.policy.bounds
        if size.items > most.items or size.size_bytes > most.size_bytes:
            name = f"{memory.name} of {memory.owner}" if memory.owner else memory.name
            items, held, most_mb = count_of(size.items, "item", ","), size.size_bytes >> 20, most.size_bytes >> 20
            print(
                f"{name} has {items} in {held:,} MB, and holds {most.items:,} in {most_mb:,} MB unless it is opened with "
                "other max_items and max_mb: the next write deletes the oldest beyond that",
                file=sys.stderr,
            )


def _lines(path: Path) -> Iterator[tuple[int, Json]]:
    """The objects of a .jsonl file with their line numbers."""
    try:
        lines = lines_of(read_bounded_text(path))  # a text in JSON may hold other separators of lines
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}") from None
    for number, line in filled_lines(lines, path):
        try:
            row = decoded_line(line)
        except TooManyValues as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object was expected")
        yield number, row


def _junk(config: Config, file: ItemFile) -> int:
    from firsthand.memories.keeping.junk import junk_in

    told = [row for _, row in _lines(Path(config.words[1]))]
    found = junk_in([kept.item for _, _, kept in _items(config, file)], told)
    if config.json:
        print_as_json(found._asdict())
        return 0
    rows = [
        [name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.1%}"]
        for name, value in found._asdict().items()
    ]
    print_table(f"{Path(config.words[0]).name} vs. {count_of(len(told), 'told fact', ',')}", ["figure", "value"], rows)
    return 0
