"""What the server is measured against, in the same run."""
