"""Writes what an MCP server returned as text for a model: texts as they are, the rest as JSON or by its kind."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types

from firsthand.system.terminal import printable


def text_of_result(result: types.CallToolResult) -> str:
    """The text of a tool's result; its structured content too, if no block of text may hold it."""
    shown = [text for block in result.content if (text := block_text(block)).strip()]
    has_words = any(isinstance(block, types.TextContent) and block.text.strip() for block in result.content)
    if not has_words and result.structured_content is not None:
        shown.insert(0, json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(shown)


def contents_text(result: types.ReadResourceResult) -> str:
    """The text of a resource's contents."""
    return "\n".join(_content_text(each) for each in result.contents)


def messages_text(result: types.GetPromptResult) -> str:
    """The text of a prompt's messages, each after its role."""
    return "\n\n".join(f"{each.role}: {block_text(each.content)}" for each in result.messages)


def block_text(block: Any) -> str:
    """The text of one block of content."""
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type}: {printable(block.mime_type)[:60]}, {_num_bytes(block.data):,} bytes, not shown]"
        case types.EmbeddedResource():
            return _content_text(block.resource)
        case types.ResourceLink():
            return f"[resource {printable(str(block.uri))[:500]}: {printable(block.name)[:200]}]"
    return f"[{getattr(block, 'type', 'content')}, not shown]"


def _content_text(content: types.TextResourceContents | types.BlobResourceContents) -> str:
    if isinstance(content, types.TextResourceContents):
        return content.text
    kind = printable(content.mime_type or "bytes")[:60]
    return f"[{printable(str(content.uri))[:500]}: {kind}, {_num_bytes(content.blob):,} bytes, not shown]"


def _num_bytes(data: str) -> int:
    """The number of bytes of a text in Base64."""
    return len(data.rstrip("=")) * 3 // 4
