"""Checks the settings of a run before anything that they name is loaded: a run's folder may come from anyone.

A run that was made under this data home carries the home's seal over its settings, and may name files. Of any other, only
what is installed is made again, until somebody has looked at it and says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.loop.approval import parse_rules
from firsthand.message import canonical
from firsthand.runs.run_folder import Run
from firsthand.system.home_seal import is_ours
from firsthand.system.option_spec import Spec, parse_spec
from firsthand.system.whole_question import shown_whole

KINDS = ("benchmark", "pattern", "tool", "guard", "memory")
LOADED = {
    "benchmarks": "benchmark", "model": "model", "pattern": "pattern", "tools": "tool", "guard": "guard",
    "memory": "memory", "approve": "approval", "replay": "replay", "on": "cluster",
}  # fmt: skip
"""Settings that load, open or permit something -> the kind of their values."""
HARMLESS = {
    "device": "a device of this machine by torch's name, for local models alone",
    "weights": "one of four formats",
    "limit": "fewer tasks",
    "epochs": "a number of attempts, bounded by MAX_EPOCHS",
    "reduce": "the name of a reducer that is here",
    "metrics": "one of two words; the benchmarks that it wraps are looked at wrapped",
    "answers": "one of two words",
    "seed": "a number",
    "temperature": "a number",
    "max_tokens": "a number",
    "system": "text that the model reads, as it reads the tasks",
    "budget_tokens": "a number; none of the budgets permits anything",
    "budget_calls": "a number",
    "budget_seconds": "a number",
    "budget_usd": "a number",
    "equal_budget": "a number, or `auto`",
    "concurrency": "a number, and never more attempts than there are",
    "workers": "never taken from a run; see settings.CLUSTER",
    "name": "letters and digits of it become part of a new run's id",
}
"""Every other setting, and why anybody's value of it may be taken."""
_ALLOWED = ("read", "write", "external")
"""Effects of tools that are allowed without a rule."""
_OPENING = {
    "engine": ("", "docker", "podman", "sqlite", "mariadb"), "network": ("false",), "trust": ("false",), "write": ("false",),
    "allow": ("",), "ports": ("80", "443", "80+443", "443+80"), "url": ("",), "sandbox": ("", "firsthand", "docker"),
}  # fmt: skip
"""Options that start a program or open a border, to a host of one word too, and the values of them that a run from
elsewhere may state."""

_HOSTED = frozenset({"openai", "anthropic", "google", "ollama"})
"""Providers whose names of models, without an address, open no file; a provider that is not here needs `--trust`."""
_SIMULATED = frozenset({("scripted", "echo"), ("sim", "sessions")})


def is_own(run: Run) -> bool:
    """True if the run's settings carry the seal of this data home."""
    return is_ours(canonical(run.config), run.about.get("config_seal"), "run")


def expect_own(run: Run, named: Mapping[str, Sequence[str] | str | None], *, trust: bool) -> None:
    """ConfigError if a run from elsewhere names a file, a folder, a server or a model's address, and is not trusted.

    `named` maps a kind, as in `named_by`, to the texts that will be loaded.
    """
    if not (trust or is_own(run)):
        expect_known(run.id, named)


def expect_known(folder: str, named: Mapping[str, Sequence[str] | str | None]) -> None:
    """ConfigError for names that a folder from elsewhere gives and that are not installed; kinds as `expect_own`."""
    expect_nothing_of(folder, unknown_names(named))


def unknown_names(named: Mapping[str, Sequence[str] | str | None]) -> list[tuple[str, str]]:
    """Kind and text of each name that is not installed; kinds as `expect_own`."""
    listed = [(kind, (given,) if isinstance(given, str) else given or ()) for kind, given in named.items()]
    return [(kind, text) for kind, texts in listed for text in texts if not _is_installed(kind, text)]


def expect_nothing_of(folder: str, found: Sequence[tuple[str, str]]) -> None:
    """ConfigError with all that a folder from elsewhere would have loaded or read, if that is anything."""
    if found:
        told = shown_whole(", ".join(dict.fromkeys(f"the {kind} {text!r}" for kind, text in found)))
        raise ConfigError(
            f"{folder} was made elsewhere and names {told}, which may run code or reach files and servers: look at it, then "
            "add --trust"
        )


def named_by(settings: Any) -> dict[str, Sequence[str] | str | None]:
    """All that run settings name and that loads, opens or permits something, by kind."""
    return {kind: getattr(settings, name) for name, kind in LOADED.items()}


def expect_installed(named: Mapping[str, Sequence[str]]) -> None:
    """ConfigError if a run names a file, a server or another model to be loaded, which the browser must not cause."""
    for kind, texts in named.items():
        for text in texts:
            if not _is_installed(kind, text):
                raise ConfigError(
                    f"the run names the {kind} {text[:60]!r}, which may load a file, a server or a model: continue it in "
                    "the terminal with `firsthand fork`"
                )


def _is_installed(kind: str, text: str) -> bool:
    """True for a name that is known here, with options that are no paths and no addresses."""
    if kind in ("replay", "cluster", "parent"):  # any path, or any host
        return False
    if kind == "approval":  # what a person here would be asked about
        return all(rule != "allow" or name in _ALLOWED for name, rule in parse_rules((text,)).items())
    if kind == "model":
        return _is_named_model(text)
    if (kind, text) == ("tool", "none"):
        return True
    known = catalog.names(kind).keys() - {"mcp"}  # type: ignore[arg-type]
    return _is_plain(parse_spec(text), known)


def _is_named_model(text: str) -> bool:
    """True for a model by name alone: of the list, of a hosted provider, or one that needs no file."""
    if set(text) & set("/\\@~\0") or os.path.lexists(text):
        return False
    provider, colon, name = text.partition(":")
    if not colon:
        return "+" not in text  # an adapter, a steering vector or a monitor is a file
    return provider in _HOSTED or (provider, name) in _SIMULATED or (provider == "sim" and name.startswith("game24"))


def _is_plain(spec: Spec, known: Collection[str]) -> bool:
    values = all(_opens_nothing(key, value) for key, value in spec.options.items())
    return spec.name.partition("@")[0] in known and values and all(_is_plain(each, known) for each in spec.parts)


def _opens_nothing(key: str, value: str) -> bool:
    """True if an option is no path, no address, no file or folder of the current one, and starts and opens nothing."""
    if key in _OPENING:
        return value.lower() in _OPENING[key]
    if set(value) & set("/\\:.~") and not _is_number(value):
        return False
    return not any(os.path.lexists(part) for part in {value, *re.split(r"[+,; ]", value)} if part and "\0" not in part)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
