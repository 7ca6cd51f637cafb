"""Retrieval over MCP: an index is searched by two tools, and its documents are resources."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

import mcp_types as types

from firsthand.errors import StoreError, ToolError, UnknownName
from firsthand.loop.concurrency import in_thread
from firsthand.retrieval.tools.search import SearchIndex
from firsthand.serve.mcp.mcp_server import Contents, Offer, ServedResource
from firsthand.serve.mcp.served_tool import served
from firsthand.tool import tool_from_function

MAX_LISTED = 1_000
"""Documents that are listed one by one; those of a larger index are found by its search alone."""
MAX_DOCUMENT = 1_000_000
"""The most characters of a document in one reply."""


def offer_index(offer: Offer, path: str, *, only: bool) -> None:
    """Adds a folder of documents, a JSONL file or an index to an offer; `only` says that there is no other.

    Its tools are `search` and `lookup`, with the name of the index behind if there are several.
    """
    made = SearchIndex(path)
    name = "".join(char if char.isalnum() else "_" for char in Path(path).resolve().stem).strip("_") or "documents"
    for function, word in ((made.search, "search"), (made.lookup, "lookup")):
        tool = tool_from_function(
            function, effect="read", name=(word if only else f"{word}_{name}")[:64], origin=f"documents in {name}"
        )
        offer.tools.append(served(tool))

    async def read(uri: str, parts: dict[str, str]) -> Contents:
        try:
            document = await in_thread(lambda: made.index.document(parts["document"]))
        except UnknownName:
            raise ToolError(f"no document {parts['document'][:100]!r} is served here") from None
        except StoreError as error:  # names the file
            logging.getLogger("firsthand").error("documents of %s: %s", name, error)
            raise ToolError("the documents cannot be read now: try again later") from None
        text = document.text
        if len(text) > MAX_DOCUMENT:
            text = f"{text[:MAX_DOCUMENT]}\n[cut after {MAX_DOCUMENT:,} of {len(text):,} characters]"
        return [types.TextResourceContents(uri=uri, text=text, mime_type="text/plain")]

    base = f"firsthand://index/{name}/"
    described = f"A document of {name}; the search gives the ids of documents."
    offer.resources.append(ServedResource(base + "{document}", f"{name}: document", described, read))
    ids = sorted(made.index.hashes())
    for id in ids if len(ids) <= MAX_LISTED else ():

        async def read_one(uri: str, parts: dict[str, str], id: str = id) -> Contents:
            return await read(uri, {"document": id})

        offer.resources.append(ServedResource(base + quote(id, safe=""), id, f"A document of {name}.", read_one))
