"""The documentation: its code blocks run, its reference is the code's, its site builds, its configurations work."""
