"""Patchify stem."""
