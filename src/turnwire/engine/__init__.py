"""What happens to a turn."""
