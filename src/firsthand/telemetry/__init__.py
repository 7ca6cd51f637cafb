"""Exports stored and live attempts as OpenTelemetry spans, under the GenAI semantic conventions."""
