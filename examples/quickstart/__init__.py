"""The first five minutes: a gate, stand-ins of four services, and one call of each kind."""
