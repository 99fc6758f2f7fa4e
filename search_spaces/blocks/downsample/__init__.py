"""Down-sampling between stages."""
