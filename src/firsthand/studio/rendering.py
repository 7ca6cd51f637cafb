"""Renders the Studio's pages: Jinja templates with every value escaped and its control and direction characters visible."""

from __future__ import annotations

import hashlib
import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from firsthand.show import board_words
from firsthand.show.html_page import visible
from firsthand.studio.compiled_templates import CompiledTemplates
from firsthand.studio.typed_filter import written_term
from firsthand.system.plurals import count_of

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"


def is_part(request: Request) -> bool:
    """True if htmx asks for a part of a page that is open already."""
    return request.headers.get("hx-request") == "true"


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The page of a template of this room."""
    return HTMLResponse(render(name, request=request, **values), status)


def json_answer(body: Any) -> Response:
    """The answer of a script's question: JSON in ASCII, for texts may hold lone surrogates, which UTF-8 has no bytes for."""
    return Response(json.dumps(body, ensure_ascii=True, allow_nan=False), media_type="application/json")


def render(name: str, **values: Any) -> str:
    """The text of a template of this room."""
    return _environment().get_template(f"{name}.html.j2").render(**values)


def address(path: str, **query: Any) -> str:
    """A path of the Studio, with a query of those values that are not empty; parts of the path are to be quoted before."""
    pairs = {name: value for name, value in query.items() if value not in ("", None, False)}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def part(text: object) -> str:
    """A text as one part of a path."""
    return quote(str(text).encode("utf-8", "surrogatepass"), safe="")


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the file, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"


@cache
def _environment() -> Environment:
    shared = FileSystemLoader(FOLDER.parent / "show")
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(FOLDER / "templates"), PrefixLoader({"show": shared})]),
        bytecode_cache=CompiledTemplates(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(
        asset=asset, address=address, part=part, term=written_term, words=board_words, count_of=count_of
    )
    environment.filters["shell_word"] = shlex.quote  # of a command that a reader may paste: the text may be a sender's
    return environment


def _shown(value: Any) -> Any:
    if isinstance(value, Markup) or type(value) is not str:
        return value
    return visible(value)
