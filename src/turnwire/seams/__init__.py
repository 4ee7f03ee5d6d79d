"""What each part promises: one Protocol a file, with its types and errors."""
