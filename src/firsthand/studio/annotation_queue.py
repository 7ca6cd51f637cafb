"""Queues of attempts that people rate: who gets which next, what they said, and how far they agree.

Items that need one more rater come first, then those that nobody has rated. While somebody has an item open it counts as
rated by them, so no item is given to more raters than the queue asks for. What somebody says of an item after their time is
kept too, although it was given to another by then.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json, canonical
from firsthand.studio.studio_store import StoredItem, StudioStore, expect_version

QUEUE, LABEL, OPEN = "queue", "label", "open-item"
OPEN_S = 600.0
"""An item that somebody has open is theirs for so long."""
MAX_ITEMS = 5000
MAX_RATERS = 10
MOST_KEPT = 200_000
"""Labels of all queues together that are kept in memory."""
MOST_READ_SINGLY = 200
"""If more labels of a queue have changed, all are read at once."""


@dataclass(frozen=True)
class AnnotationQueue:
    """Attempts of one run that are to be rated under one name."""

    name: str
    run: str
    items: tuple[str, ...]
    """Places of attempts, in their order."""
    score: str
    """The name of the score; the mean of an item's labels is kept in the run as `note.SCORE`."""
    raters: int = 1
    """The number of people who rate each item; 2 or more measure agreement."""
    shared: int = 0
    """With `raters` 2 or more: only the first so many items are rated by several, the rest by one; 0 is all."""
    guide: str = ""
    """Instructions for the raters."""

    def __post_init__(self) -> None:
        if not self.items:
            raise ConfigError("the queue has no attempts: choose another filter")
        if len(self.items) > MAX_ITEMS:
            raise ConfigError(f"the queue has {len(self.items):,} attempts: at most {MAX_ITEMS:,} are taken")
        if not 1 <= self.raters <= MAX_RATERS:
            raise ConfigError(f"raters is {self.raters}: give 1 to {MAX_RATERS}")

    def wanted(self, position: int) -> int:
        """The number of people who rate the item at this position."""
        return self.raters if not self.shared or position < self.shared else 1

    def to_json(self) -> Json:
        """The queue as a document."""
        return {**vars(self), "items": list(self.items)}


@dataclass(frozen=True)
class Label:
    """One person's rating of one item."""

    place: str
    rater: str
    value: float
    text: str
    version: int


@dataclass(frozen=True)
class QueueState:
    """The progress of a queue."""

    queue: AnnotationQueue
    labels: tuple[Label, ...]
    done: int
    """Items that have all their labels."""
    by_rater: tuple[tuple[str, int, float], ...]
    """Rater, number of labels and their mean."""
    pairs: int
    """Items with two labels or more."""
    alpha: float | None
    """Krippendorff's alpha, of numbers; None without two labels of one item."""
    kappa: float | None
    """Cohen's kappa of the two raters with the most items in common, weighted by the squared distance of their labels."""
    same: int
    """Of the items with two labels or more, those where all are equal."""
    disagreements: tuple[tuple[str, tuple[Label, ...]], ...]
    """Items whose labels differ, the largest difference first."""


class Queues:
    """The queues of a store.

    Labels that were read are kept, so that only those that have changed since, here or in another process, are read again.
    """

    def __init__(self, store: StudioStore):
        self.store = store
        self._kept: dict[str, dict[str, Label]] = {}
        self._states: dict[str, tuple[dict[str, Label], QueueState]] = {}
        self._counting = threading.Lock()
        self._reading = threading.Lock()

    def names(self) -> list[str]:
        """All queues by name."""
        return [item.key for item in self.store.items(QUEUE)]

    def make(self, queue: AnnotationQueue) -> None:
        """Keeps a new queue; ConfigError if there is one of its name."""
        if "/" in queue.name:
            raise ConfigError(f"{queue.name[:60]!r} is no name of a queue: leave the slash out")
        self.store.put(QUEUE, queue.name, queue.to_json(), version=0)

    def get(self, name: str) -> AnnotationQueue:
        """The queue of that name; UnknownName if there is none."""
        item = self.store.get(QUEUE, name)
        if item is None:
            raise UnknownName(f"no queue {name[:60]!r}")
        return AnnotationQueue(**{**item.body, "items": tuple(item.body["items"])})

    def labels(self, name: str) -> list[Label]:
        """All labels of a queue, by place and rater."""
        return _in_order(self._read_once(name))

    def num_rated(self, name: str, rater: str) -> int:
        """The number of items of a queue that somebody has rated."""
        return sum(label.rater == rater for label in self._read_once(name).values())

    def _read_once(self, name: str) -> dict[str, Label]:
        """All labels of a queue; of several who ask for what nobody has read, one reads it. Not within `exclusive`."""
        with nullcontext() if name in self._kept else self._reading:
            return self._known(name)

    def _known(self, name: str) -> dict[str, Label]:
        """All labels of a queue as they are now, by key. What is returned is never changed."""
        kind, known = f"{LABEL} {name}", self._kept.get(name, {})
        versions = self.store.versions(kind)
        changed = [key for key, version in versions.items() if key not in known or known[key].version != version]
        if not changed and len(known) == len(versions):
            return known
        if len(changed) > MOST_READ_SINGLY:
            found = {item.key: _label_of(item) for item in self.store.items(kind)}
        else:
            again = [item for key in changed if (item := self.store.get(kind, key)) is not None]
            found = {key: label for key, label in known.items() if key in versions}
            found.update((item.key, _label_of(item)) for item in again)
        kept = {each: labels for each, labels in self._kept.copy().items() if each != name}
        while kept and len(found) + sum(map(len, kept.values())) > MOST_KEPT:
            kept.pop(next(iter(kept)))
        self._kept = {**kept, name: found}
        return found

    def label(self, name: str, place: str, rater: str) -> Label | None:
        """Somebody's rating of an item; None if there is none yet."""
        kind = f"{LABEL} {name}"
        found = self.store.get(kind, self._key_in(kind, place, rater))
        return None if found is None else Label(place, rater, found.body["value"], found.body["text"], found.version)

    def rate(
        self,
        name: str,
        place: str,
        rater: str,
        value: float,
        text: str = "",
        *,
        version: int | None = None,
        keep_too: Callable[[], None] = lambda: None,
    ) -> None:
        """Keeps what somebody says of an item; ConfigError if another tab has changed it since `version`.

        `keep_too` is called if it has not, to keep the rating elsewhere; if that raises, nothing is kept here.
        """
        queue = self.get(name)
        if place not in queue.items:
            raise UnknownName(f"the queue {name[:60]!r} has no attempt {place[:40]!r}")
        if not 0 <= value <= 1:
            raise ConfigError(f"the label is {value}: a number from 0 to 1 was expected")
        body = {"place": place, "rater": rater, "value": value, "text": text}
        kind = f"{LABEL} {name}"
        with self.store.exclusive(f"{QUEUE} {name}"):
            key = self._key_in(kind, place, rater)
            found = self.store.get(kind, key)
            # told by its words; `put` would name the key
            expect_version(kind, f"{place} {rater}", version, 0 if found is None else found.version)
            self.store.put(kind, key, body, version=version)
            keep_too()
            self.store.remove(f"{OPEN} {name}", self._key_in(f"{OPEN} {name}", place, rater))

    def next_item(self, name: str, rater: str, *, skip: Sequence[str] = (), now: float | None = None) -> str | None:
        """The place that this person rates next, theirs until they ask again or for OPEN_S seconds; None if none is left."""
        queue, now = self.get(name), time.time() if now is None else now
        self._read_once(name)  # before anybody has to wait for it
        with self.store.exclusive(f"{QUEUE} {name}"):  # two who ask at once are not given one item
            raters: dict[str, set[str]] = {place: set() for place in queue.items}
            for label in self._known(name).values():
                raters.setdefault(label.place, set()).add(label.rater)
            rated = {place for place, names in raters.items() if rater in names}
            for item in self.store.items(f"{OPEN} {name}"):
                if item.body["rater"] == rater:
                    self.store.remove(f"{OPEN} {name}", item.key)  # each holds one item at a time
                elif item.body["until"] > now:
                    raters.setdefault(item.body["place"], set()).add(item.body["rater"])
            left = [
                (len(raters[place]) == 0, position, place)
                for position, place in enumerate(queue.items)
                if place not in rated and place not in skip and len(raters[place]) < queue.wanted(position)
            ]
            if not left:
                return None
            # what somebody else has rated comes first, so that items are finished and agreement is known early
            chosen = min(left)[2]
            body = {"place": chosen, "rater": rater, "until": now + OPEN_S}
            self.store.put(f"{OPEN} {name}", _key(chosen, rater), body)
            return chosen

    def _key_in(self, kind: str, place: str, rater: str) -> str:
        """The key of a person's row about an item: as versions before 0.21.0 made it, if there is such a row."""
        old = f"{place} {rater}"[:190]  # others may share it
        found = self.store.get(kind, old) if old.isprintable() else None
        is_theirs = found is not None and (found.body.get("place"), found.body.get("rater")) == (place, rater)
        return old if is_theirs else _key(place, rater)

    def state(self, name: str) -> QueueState:
        """The progress of a queue, and the agreement of its raters."""
        queue, labels = self.get(name), self._read_once(name)
        with self._counting:  # of several who ask, one counts
            kept = self._states.get(name)
            if kept is None or kept[0] is not labels or kept[1].queue != queue:
                kept = (labels, _state_of(queue, _in_order(labels)))
            self._states = {each: found for each, found in self._states.items() if each in self._kept} | {name: kept}
        return kept[1]


def _label_of(item: StoredItem) -> Label:
    each = item.body
    return Label(each["place"], each["rater"], each["value"], each.get("text", ""), item.version)


def _in_order(labels: dict[str, Label]) -> list[Label]:
    return sorted(labels.values(), key=lambda each: (each.place, each.rater))


def _state_of(queue: AnnotationQueue, labels: Sequence[Label]) -> QueueState:
    from firsthand.stats.rater_agreement import cohen_kappa, krippendorff_alpha

    by_item: dict[str, list[Label]] = {place: [] for place in queue.items}
    by_rater: dict[str, dict[str, float]] = {}
    for label in labels:
        by_item.setdefault(label.place, []).append(label)
        by_rater.setdefault(label.rater, {})[label.place] = label.value
    several = {place: found for place, found in by_item.items() if len(found) >= 2}
    units = [[label.value for label in found] for found in several.values()]
    kappa = None
    if two := _most_in_common(by_rater):
        first, second = two
        both = [place for place in by_rater[first] if place in by_rater[second]]
        kappa = cohen_kappa(*([by_rater[who][place] for place in both] for who in two), weights="interval")
    differing = [(place, found) for place, found in several.items() if len({each.value for each in found}) > 1]
    differing.sort(key=lambda each: (-_spread(each[1]), each[0]))
    return QueueState(
        queue,
        tuple(labels),
        sum(len(by_item[place]) >= queue.wanted(position) for position, place in enumerate(queue.items)),
        tuple((who, len(said), sum(said.values()) / len(said)) for who, said in sorted(by_rater.items())),
        len(several),
        krippendorff_alpha(units, level="interval") if units else None,
        kappa,
        len(several) - len(differing),
        tuple((place, tuple(found)) for place, found in differing),
    )


def _most_in_common(by_rater: dict[str, dict[str, float]]) -> tuple[str, str] | None:
    names = sorted(by_rater)
    pairs = [
        (a, b) for place, a in enumerate(names) for b in names[place + 1 :] if by_rater[a].keys() & by_rater[b].keys()
    ]
    return max(pairs, key=lambda pair: len(by_rater[pair[0]].keys() & by_rater[pair[1]].keys()), default=None)


def _spread(labels: Sequence[Label]) -> float:
    values = [label.value for label in labels]
    return max(values) - min(values)


def _key(place: str, rater: str) -> str:
    """The key of the pair, whole in its digest: a place is of any length, and either may hold a blank."""
    digest = hashlib.sha256(canonical([place, rater]).encode("utf-8", "surrogatepass")).hexdigest()
    begin = "".join(filter(str.isprintable, f"{place[:60]} {rater[:60]}"))
    return f"{begin} {digest}"


def queue_of_form(form: dict[str, str], items: Sequence[str]) -> AnnotationQueue:
    """The queue that a form describes; ConfigError if a field is not what it should be."""
    numbers: dict[str, Any] = {}
    for name in ("raters", "shared"):
        text = form.get(name, "").strip() or ("1" if name == "raters" else "0")
        if not text.isascii() or not text.isdecimal() or len(text) > 6:
            raise ConfigError(f"{name} is {text[:40]!r}: a whole number was expected")
        numbers[name] = int(text)
    return AnnotationQueue(
        form.get("name", "").strip(), form.get("run", ""), tuple(items), form.get("score", "").strip(),
        guide=form.get("guide", "")[:4000], **numbers,
    )  # fmt: skip
