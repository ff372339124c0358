"""Tidegate: gateway."""
