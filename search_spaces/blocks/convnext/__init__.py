"""ConvNeXt block."""
