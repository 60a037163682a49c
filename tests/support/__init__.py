"""What several test suites share: a GGUF writer, tiny random models, and a NumPy forward pass."""
