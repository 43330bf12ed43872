"""What a declared run costs: shorthand, declarations, solving, curves, peers."""
