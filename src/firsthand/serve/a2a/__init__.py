"""Serves an agent over A2A 1.0: JSON-RPC, HTTP+JSON and gRPC."""
