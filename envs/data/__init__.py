"""Pictures with their classes: where they are read from, and in which formats."""
