"""Labels, witnesses and policies: pure functions that decide on a tool call."""
