"""Random allocation: the law of one epoch's loss."""
