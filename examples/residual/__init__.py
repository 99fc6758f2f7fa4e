"""The block of ResNet, as a block family."""
