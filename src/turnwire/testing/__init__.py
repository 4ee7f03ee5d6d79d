"""What others test against: shipped."""
