"""Measuring models on texts: perplexity, divergence from a recorded base, and what goes into each product."""
