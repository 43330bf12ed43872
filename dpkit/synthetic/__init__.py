"""Synthetic tables: measure privately, then search for rows that agree."""
