"""Fused MBConv."""
