"""Work chains: building a database, relaxing with it."""
