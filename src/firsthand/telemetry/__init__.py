"""OpenTelemetry: stored and live attempts as spans, under the GenAI semantic conventions."""
