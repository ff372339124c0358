"""Tidegate: agent."""
