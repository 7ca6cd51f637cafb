"""Readers of other tools' result files, one file a layout."""
