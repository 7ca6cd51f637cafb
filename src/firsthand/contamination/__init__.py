"""Tests for whether a model, or a corpus, holds a benchmark's items."""
