"""Tokens: from text to ids and back, chat templates in a sandbox, tool calls in text, and incremental decoding."""
