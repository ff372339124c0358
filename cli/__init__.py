"""Tidegate: cli."""
