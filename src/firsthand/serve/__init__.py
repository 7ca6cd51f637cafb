"""Serves models over HTTP: admission, telemetry, and the apps on one server."""
