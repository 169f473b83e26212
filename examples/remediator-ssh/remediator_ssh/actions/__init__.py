"""Actions of this backend, one module each."""
