"""Many releases together."""
