"""Tidegate: bundles."""
