"""The black-box kit: cases in data files, run against any server that speaks the wire (docs/guides/conformance.md)."""
