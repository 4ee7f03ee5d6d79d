"""A network for sandboxed commands that ends at public addresses."""
