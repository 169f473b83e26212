"""What people ask: lists, search, track records."""
