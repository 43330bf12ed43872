"""What the papers claimed: one module a system, run from the checkout; and bench/."""
