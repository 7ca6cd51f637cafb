"""HTTP: the application, admission, bodies, replies, keys, the server process."""
