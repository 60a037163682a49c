"""Quantizing GGUF files: file types and their mixtures, importance matrices, and types chosen for a size."""

from edgellm.tools.quantization.quantize import Plan, PlannedTensor, plan, write

__all__ = ["Plan", "PlannedTensor", "plan", "write"]
