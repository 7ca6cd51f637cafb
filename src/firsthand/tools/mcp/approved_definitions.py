"""Remembers the definitions of tools that were in use, so that one that changes later is shown as a change and asked again.

The first definition that is seen of a tool stands. A later one counts only when a person approved it; it is kept in the data
home, so a server that changes between two runs is seen as well. A tool is known by the name it has here, which is the one
that the model, the rules and the person know: another tool of the server that has it is a change.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from firsthand.errors import StoreError, ToolError
from firsthand.message import Json
from firsthand.system.home import data_home
from firsthand.system.lock import held
from firsthand.tools.mcp.definitions import ToolDefinition, difference, tool_name
from firsthand.tools.mcp.server_declaration import ServerDeclaration

MAX_FILE = 16_000_000
"""The most bytes that are kept of one server, whose tools may have new names each time."""


class ApprovedDefinitions:
    """The approved definitions of one server's tools, by the names they have here. Several processes may share them."""

    def __init__(self, declaration: ServerDeclaration, home: Path | None = None):
        key = hashlib.sha256(f"{declaration.name}\n{declaration.target}".encode()).hexdigest()[:16]
        self._folder = (home or data_home()) / "mcp" / "approved"
        self.path = self._folder / f"{declaration.name}-{key}.json"
        self._declaration = declaration
        self._known: dict[str, Json] | None = None

    def changes(self, found: dict[str, ToolDefinition]) -> dict[str, Json]:
        """For each tool that differs from its approved definition, what changed; unknown ones are noted as approved."""
        known = self._read()
        named = {name: self._name(definition) for name, definition in found.items()}
        if fresh := {named[name]: _body(each) for name, each in found.items() if named[name] not in known}:
            self._write(fresh)
        known = self._read()  # another process may have seen another definition first
        return {
            name: difference(known[named[name]], definition.approved)
            for name, definition in found.items()
            if known[named[name]]["digest"] != definition.digest
        }

    def approve(self, definition: ToolDefinition) -> None:
        """Let this definition stand in place of the one before."""
        self._write({self._name(definition): _body(definition)}, replace=True)

    def _name(self, definition: ToolDefinition) -> str:
        return tool_name(self._declaration.name, definition.name)

    def _read(self) -> dict[str, Json]:
        if self._known is None:
            try:
                with self.path.open("rb") as file:
                    raw = file.read(MAX_FILE + 1)
                self._check_size(raw)
                tools: dict[str, Json] = {}
                for name, each in json.loads(raw)["tools"].items():
                    assert isinstance(each["digest"], str)
                    if len(each["digest"]) < 64:  # before 0.20: by the server's name, with a part of the digest
                        old = ToolDefinition(name, each["description"], each["schema"], each["hints"])
                        name, each = self._name(old), _body(old)
                    tools.setdefault(name, each)
            except FileNotFoundError:
                tools = {}
            except OSError as error:
                raise StoreError(f"{self.path} cannot be read: {error.strerror}") from None
            except ToolError:
                raise
            except Exception:
                raise StoreError(
                    f"{self.path} is damaged, so no change of the server's tools would be seen: delete it to begin anew"
                ) from None
            self._known = tools
        return self._known

    def _write(self, more: dict[str, Json], *, replace: bool = False) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with held(self.path.with_suffix(".lock")):
                self._known = None  # another process may have added some
                stored = self._read()
                tools = stored | more if replace else more | stored
                written = self.path.with_suffix(f".{os.getpid()}.new")
                body = {"server": self._declaration.target, "tools": dict(sorted(tools.items()))}
                raw = json.dumps(body, indent=1).encode()
                self._check_size(raw)
                written.write_bytes(raw)
                written.replace(self.path)
                self._known = tools
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def _check_size(self, raw: bytes) -> None:
        if len(raw) > MAX_FILE:
            raise ToolError(
                f"the definitions that {self._declaration.origin} has shown so far are more than {MAX_FILE:,} bytes, which "
                f"is the limit: if you trust it, delete {self.path} to begin anew"
            )


def _body(definition: ToolDefinition) -> Json:
    return {"digest": definition.digest, **definition.approved}
