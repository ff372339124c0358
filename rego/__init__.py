"""Tidegate: rego."""
