"""Chunkers: a document as spans, by size, sentences, headings, symbols or meaning."""
