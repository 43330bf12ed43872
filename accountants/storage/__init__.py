"""Where a ledger's entries are kept; knows neither events nor accountants."""
