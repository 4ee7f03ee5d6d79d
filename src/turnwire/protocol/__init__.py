"""What crosses the wire: pure values and functions, on the standard library and msgspec alone."""
