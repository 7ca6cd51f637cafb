"""HTTP: the application and its mounted apps, request bodies, replies, and the server process."""
