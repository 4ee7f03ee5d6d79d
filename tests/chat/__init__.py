"""`turnwire chat`: its parts alone, and the whole in a real terminal."""
