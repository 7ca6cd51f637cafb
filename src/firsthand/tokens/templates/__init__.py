"""Chat templates: rendered in a sandbox, with sampled turns spliced in."""
