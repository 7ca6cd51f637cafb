"""Spans of other programs: received by OTLP, redacted, kept, read in any dialect, shown, scored, made into tasks."""
