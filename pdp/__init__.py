"""Tidegate: pdp."""
