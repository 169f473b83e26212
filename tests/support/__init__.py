"""The test bed: real servers on free ports, found or skipped with one line, ended by handle."""
