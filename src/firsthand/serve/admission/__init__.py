"""Who may send requests, how many at a time, and how a request ends early."""
