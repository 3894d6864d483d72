"""What surrounds a run: files, checkpoints and command lines. Importing it imports no torch."""
