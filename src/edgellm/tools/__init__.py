"""Work on model files: read, compare, split, merge and edit GGUF files, and make them from other formats."""
