"""Convolutional stem."""
