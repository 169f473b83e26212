"""Checks of this backend, one module each."""
