"""One worker program per peer; all speak the lines that worker.py describes."""
