"""The catalog: loading, diagnostics, matching, templates, reload."""
