"""Storage and search that every kind of memory shares: items, one SQLite file, ranking, fences."""
