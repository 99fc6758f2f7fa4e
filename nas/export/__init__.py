"""From a network of a front to files that need nothing of ours: formats, gates, model card, record. Loads no torch."""

from __future__ import annotations

from nas.export.record import DEVICE_FORMATS, FORMATS, RECORD_FILE, ExportedFile, ExportedModel, Format, parse_formats

__all__ = ["DEVICE_FORMATS", "FORMATS", "RECORD_FILE", "ExportedFile", "ExportedModel", "Format", "parse_formats"]
