"""Held calls: what an approval is (`model`), its digests, the vote reducer, and the service that people reach."""
