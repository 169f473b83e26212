"""Checks of the alert itself."""
