"""System prompts by name, with all their versions, and the runs that each version was tried in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json, canonical
from firsthand.preference import utc_now
from firsthand.runs.index import RunInfo
from firsthand.studio.studio_store import StudioStore

PROMPT = "prompt"
MAX_CHARS = 50_000
MAX_VERSIONS = 500


@dataclass(frozen=True)
class PromptVersion:
    """One text of a prompt."""

    number: int
    """From 1 on."""
    text: str
    at: str
    by: str
    note: str


@dataclass(frozen=True)
class TriedIn:
    """A run of a version, with its mean score."""

    info: RunInfo
    version: int
    score: float | None


class PromptLibrary:
    """The prompts of a store."""

    def __init__(self, store: StudioStore):
        self.store = store

    def names(self) -> list[str]:
        """All prompts by name."""
        return [item.key for item in self.store.items(PROMPT)]

    def references(self) -> list[str]:
        """All prompts as `text` finds their last versions: by name, or `NAME@NUMBER` where a name alone is another's."""
        names = self.names()
        known = {*names}

        def is_others(name: str) -> bool:
            numbered = _version_of(name)
            return numbered is not None and numbered[0] in known

        return [f"{name}@{len(self.versions(name))}" if is_others(name) else name for name in names]

    def versions(self, name: str) -> list[PromptVersion]:
        """All versions, the first one first; UnknownName if there is no such prompt."""
        item = self.store.get(PROMPT, name)
        if item is None:
            raise UnknownName(f"no prompt {name[:60]!r}")
        return [PromptVersion(number, **each) for number, each in enumerate(item.body["versions"], 1)]

    def add(self, name: str, text: str, by: str, note: str = "", *, after: int | None = None) -> int:
        """Adds a version and returns its number; the text of the last version again adds none.

        `after` is the last version that was seen: ConfigError if somebody has added another since.
        """
        if "/" in name:
            raise ConfigError(f"{name[:60]!r} is no name of a prompt: leave the slash out")
        if not text.strip() or len(text) > MAX_CHARS:
            raise ConfigError(f"the prompt has {len(text):,} characters: give 1 to {MAX_CHARS:,}")
        with self.store.exclusive(f"{PROMPT} {name}"):  # of two who add at once, each adds to the other's
            item = self.store.get(PROMPT, name)
            if item is None and _version_of(name) is not None:
                raise ConfigError(
                    f"{name[:60]!r} is no name of a prompt: NAME@NUMBER is a version of one, so leave the number or the @ "
                    "out"
                )
            body: Json = {"versions": []} if item is None else item.body
            versions = body["versions"]
            if after is not None and after != len(versions):
                raise ConfigError(f"the prompt {name[:60]!r} has {len(versions)} versions by now: open it again")
            if len(versions) >= MAX_VERSIONS:
                raise ConfigError(f"the prompt {name[:60]!r} has {MAX_VERSIONS} versions: begin another")
            if not versions or versions[-1]["text"] != text:
                versions.append({"text": text, "at": utc_now(), "by": by, "note": note[:400]})
                self.store.put(PROMPT, name, body, version=0 if item is None else item.version)
            return len(versions)

    def text(self, reference: str) -> tuple[str, int, str]:
        """Name, number and text of `NAME` (its last version) or `NAME@NUMBER`.

        Until 0.22.0 a prompt's own name might end with `@NUMBER`: such a name is that prompt where there is no prompt NAME,
        and else a version of NAME, so that `NAME@NUMBER@NUMBER` says the other. UnknownName if there is none.
        """
        numbered = _version_of(reference)
        is_own = numbered is not None and self.store.get(PROMPT, reference) is not None
        if numbered is not None and is_own and self.store.get(PROMPT, numbered[0]) is None:
            numbered = None
        name, number = numbered or (reference, "")
        versions = self.versions(name)
        chosen = int(number) if number else len(versions)
        if not 1 <= chosen <= len(versions):
            hint = f"; the prompt {reference[:60]!r} has the versions {reference[:60]}@1 and on" if is_own else ""
            raise UnknownName(
                f"the prompt {name[:60]!r} has no version {number[:20]}: it has 1 to {len(versions)}{hint}"
            )
        return name, chosen, versions[chosen - 1].text


def _version_of(reference: str) -> tuple[str, str] | None:
    """Name and number of a reference that ends with `@NUMBER`; None for another."""
    name, at, number = reference.rpartition("@")
    return (name, number) if at and number.isascii() and number.isdecimal() else None


def tried_in(name: str, infos: Iterable[RunInfo]) -> list[TriedIn]:
    """The runs that a prompt was tried in, by version, the newest first within one."""
    found = []
    for info in infos:
        version = info.config.get("prompt_version")
        if info.config.get("prompt") == name and isinstance(version, int):
            means = [each.mean for each in info.scores if each.mean is not None]
            found.append(TriedIn(info, version, sum(means) / len(means) if means else None))
    return sorted(found, key=lambda each: -each.version)


def compared_first(tried: Sequence[TriedIn]) -> tuple[str, ...]:
    """The ids of the two runs of `tried_in` that answer which version is better.

    These are the newest runs of the last two versions that were tried on one data set with the same models and check;
    where no two were, the newest runs of the last two versions; of one version alone its newest two runs.
    """
    newest: dict[tuple[int, str], TriedIn] = {}
    for each in tried:
        newest.setdefault((each.version, _settings(each)), each)
    pairs = [(a, b) for a in newest.values() for b in newest.values() if b.version < a.version]
    settings = {each.info.id: key for (_, key), each in newest.items()}
    alike = [(a, b) for a, b in pairs if settings[a.info.id] == settings[b.info.id]]
    if pairs:
        a, b = max(alike or pairs, key=lambda pair: (pair[0].version, pair[1].version))  # the first of equal ones
        return a.info.id, b.info.id
    return tuple(each.info.id for each in tried[:2])


def _settings(tried: TriedIn) -> str:
    """The data set, models and check of a run as one text."""
    return canonical({name: tried.info.config.get(name) for name in ("data_set", "models", "check")})
