"""The machine and the process: terminal, home folder, locks, option parsing, request owner, trace context."""
