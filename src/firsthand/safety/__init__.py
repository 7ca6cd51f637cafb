"""Guards, a file each, found by name: `--guard redact:pattern=SECRET`."""
