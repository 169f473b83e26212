"""The edge to other systems: vendor SDKs and their errors become ours here and go no further."""
