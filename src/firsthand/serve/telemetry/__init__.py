"""What a server reports: metrics, request log, spans."""
