"""Where skills are kept, and how they get there."""
