"""Studies: one folder each, never part of the wheel."""
