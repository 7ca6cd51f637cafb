"""Worlds where agents act: state, rounds, text actions and native tool calls; a file or a folder for each."""
