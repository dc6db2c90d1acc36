"""SimpleDB Local: a server that speaks Amazon SimpleDB's API, for development and tests."""
