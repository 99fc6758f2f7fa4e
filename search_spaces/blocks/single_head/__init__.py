"""Single-head partial attention."""
