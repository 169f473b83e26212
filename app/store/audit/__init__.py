"""The audit: chained events, seals, the stream of them, and their verification."""
