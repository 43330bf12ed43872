"""Private synthetic tables: measure once, draw rows for ever."""
