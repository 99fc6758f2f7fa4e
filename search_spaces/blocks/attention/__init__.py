"""Transformer block over pixels."""
