"""Telemetry of a server: metrics, request log, spans."""
