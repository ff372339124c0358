"""Builtins that OPA's Wasm asks of its host."""
