"""The durable state of one gateway: a port (`port`), its tables (`schema`) and the SQLite driver (`sqlite`)."""
