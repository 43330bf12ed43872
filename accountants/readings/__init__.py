"""The accountants: one event, read in six ways, and what is built on them."""
