"""MBConv, the inverted residual."""
