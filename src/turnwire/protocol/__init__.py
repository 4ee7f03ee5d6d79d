"""What crosses the wire: pure values and functions."""
