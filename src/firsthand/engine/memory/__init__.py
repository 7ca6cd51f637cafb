"""KV cache memory: blocks, the prefix cache, sliding-window pool, pinned prefixes."""
