"""Runs, episodes and their records."""
