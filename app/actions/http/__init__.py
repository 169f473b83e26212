"""Actions by HTTP."""
