"""How a ledger counts charges; knows neither events nor accountants."""
