"""Answers to people's questions: lists, search, track records."""
