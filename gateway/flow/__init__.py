"""One call, from its head to its answer: a generator that decides, and a driver that does."""
