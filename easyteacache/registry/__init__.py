"""Find a record: layers, index and lock."""
