"""One release: the pair of distributions that dominates it, seen several ways."""
