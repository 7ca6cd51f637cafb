"""Tokenizers, chat templates, tool-call parsers, and incremental detokenizing."""
