"""A tool that pays and what it declares, for tests of rules about calls."""

from __future__ import annotations

from typing import Any

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.model import ToolSpec
from firsthand.tool import Tool

PAYS = Declaration(("to.id", "folder"), recipients=("to",), rate=3, spends=("fee",))
CHAT = Declaration(trusts=("id", "by"), readers="user")


def made(declares: Declaration | None = PAYS, effect: Any = "external", name: str = "pay", **schemas: Json) -> Tool:
    """A tool of these declarations; a call with `wrong` is refused."""

    def validate(given: Json) -> Json:
        if "wrong" in given:
            raise ToolError("wrong  of\nno use " + "x" * 99)
        return {"note": "none", **given}

    properties = schemas or {"to": {}, "folder": {"default": "notes"}, "fee": {"default": 7}, "note": {}}
    required = [each for each in schemas if each != "opt"]
    spec = ToolSpec(name, "Pay.", {"properties": properties, "required": required})
    return Tool(spec, effect, str, validate, declares=declares)


PAY = made()
