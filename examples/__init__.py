"""Runnable scenarios, used by the quick start and by tests."""
