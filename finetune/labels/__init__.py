"""Labels read from a store: classification problems, splits, budgets."""
