"""Shared by web tools: address checks, and HTML as text."""
