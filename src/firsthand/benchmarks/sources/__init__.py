"""Where a benchmark's rows come from: packages, folders, the hub, a user's own tables."""
