"""Compares edgellm with its peers: same files, same threads, same minute (README.md beside this file)."""
