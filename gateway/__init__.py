"""The enforcement point: every call that leaves is parsed, identified, decided, recorded and forwarded from here."""
