"""Decision logs and status in OPA's formats, out to collectors; the ledger is the queue."""
