"""Remembers the definitions of tools that were in use, so that one that changes later is shown as a change and asked again.

The first definition that is seen of a tool stands. A later one counts only when a person approved it; it is kept in the data
home, so a server that changes between two runs is seen as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.system.home import data_home
from firsthand.system.lock import held
from firsthand.tools.mcp.definitions import ToolDefinition, difference
from firsthand.tools.mcp.server_declaration import ServerDeclaration


class ApprovedDefinitions:
    """The approved definitions of one server's tools. Several processes may share them."""

    def __init__(self, declaration: ServerDeclaration, home: Path | None = None):
        key = hashlib.sha256(f"{declaration.name}\n{declaration.target}".encode()).hexdigest()[:16]
        self._folder = (home or data_home()) / "mcp" / "approved"
        self.path = self._folder / f"{declaration.name}-{key}.json"
        self._target = declaration.target
        self._known: dict[str, Json] | None = None

    def changes(self, found: dict[str, ToolDefinition]) -> dict[str, Json]:
        """For each tool that differs from its approved definition, what changed; unknown ones are noted as approved."""
        known = self._read()
        fresh = {name: _body(definition) for name, definition in found.items() if name not in known}
        if fresh:
            self._write(fresh)
        known = self._read()  # another process may have seen another definition first
        changed = {
            name: difference(known[name], _body(definition))
            for name, definition in found.items()
            if known[name]["digest"] != definition.digest
        }
        for change in changed.values():
            change.pop("digest", None)
        return changed

    def approve(self, definition: ToolDefinition) -> None:
        """Let this definition stand in place of the one before."""
        self._write({definition.name: _body(definition)}, replace=True)

    def _read(self) -> dict[str, Json]:
        if self._known is None:
            try:
                body: Any = json.loads(self.path.read_text(encoding="utf-8"))
                tools = body["tools"]
                assert all(isinstance(each["digest"], str) for each in tools.values())
            except FileNotFoundError:
                tools = {}
            except OSError as error:
                raise StoreError(f"{self.path} cannot be read: {error.strerror}") from None
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
                body = {"server": self._target, "tools": dict(sorted(tools.items()))}
                written.write_text(json.dumps(body, indent=1), encoding="utf-8")
                written.replace(self.path)
                self._known = tools
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None


def _body(definition: ToolDefinition) -> Json:
    return {
        "digest": definition.digest,
        "description": definition.description,
        "schema": definition.schema,
        "hints": definition.hints,
    }
