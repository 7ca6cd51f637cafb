"""Drafts a declaration from a tool's name and the names of its arguments: a beginning for tools that nobody has declared.

The rule errs to the strict side: an argument that is not known to be content decides where power goes, every result is the
user's alone, and of a result only fields with the names of ids and people are trusted. A person should read what it drafts.
"""

from __future__ import annotations

import re

from firsthand.declaration import Declaration
from firsthand.model import ToolSpec
from firsthand.tool import Effect

READING = re.compile(r"(get|list|search|read|find|check|fetch|show|look|view|query|count|describe|download)(_|$)")
CONTENT = re.compile(
    r"(.*_)?(body|content|text|subject|title|description|message|note|comment|summary|reason|amount|quantity|date|day|time|"
    r"start|end|duration|recurring|location|format|limit|query|first_name|last_name)(_.*)?"
)
"""Names of arguments that say something, where all others decide on something."""
PEOPLE = re.compile(
    r"(.*_)?(recipients?|participants?|to|cc|bcc|e?mails?|addresse?s?|users?|members?|channels?|urls?|accounts?)"
)
"""Names of arguments that name those who read the call."""
GRANTS = re.compile(r"(share|invite|grant|authorize|authorise)(_|$)")
DELETES = re.compile(r"(delete|remove|erase|drop|purge)(_|$)")
TRUSTED = (
    "id", "id_", "name", "filename", "email", "sender", "recipient", "recipients", "participants", "owner", "cc", "bcc",
)  # fmt: skip
"""Fields of results that are ids and people."""


def drafted(spec: ToolSpec, *, lists_names: bool = False) -> tuple[Effect, Declaration]:
    """The effect and the declaration of a tool by its names; `lists_names` if its result is a list of texts.

    A tool that deletes counts as `write`, not as `irreversible`, of which the guard would want a dry run.
    """
    arguments = list(spec.parameters.get("properties", {}))
    if READING.match(spec.name):
        told = tuple(name for name in arguments if name == "url")
        return "read", Declaration(told, (".", *TRUSTED) if lists_names else TRUSTED, told, "user")
    powers = tuple(name for name in arguments if not CONTENT.fullmatch(name))
    people = tuple(name for name in powers if PEOPLE.fullmatch(name))
    effect: Effect = "write" if DELETES.match(spec.name) else "external"
    return effect, Declaration(powers, ("id", "id_"), people, "user", grants=bool(GRANTS.match(spec.name)))
