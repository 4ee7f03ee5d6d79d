"""The crash bench: a server under load is killed again and again, and nothing may be lost, doubled or left open."""
