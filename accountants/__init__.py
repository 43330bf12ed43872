"""How privacy is counted: events, accountants and the ledger; never imports JAX."""
