"""What every answer is made of: relations, bounds, budgets, errors, checked numbers."""
