"""Backends: the systems that remediations act on and look at, each in a folder of its own."""
