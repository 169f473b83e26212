"""Checks of Redis."""
