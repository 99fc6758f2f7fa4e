"""Classifier head."""
