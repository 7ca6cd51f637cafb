"""Serves an agent: durable sessions with one Trace each, behind OpenAI's interface and other protocols."""
