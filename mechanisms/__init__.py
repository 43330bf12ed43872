"""How privacy is bought: small pure releases in JAX, each with its event."""
