"""Norms of per-example gradients of any JAX loss, without the gradients themselves."""
