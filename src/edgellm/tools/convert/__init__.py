"""
Hugging Face model folders to GGUF: ``convert(folder, out, "q8_0")``.

Names of keys and tensors come from the `gguf` package; what they mean is what llama.cpp reads in them.
"""

from edgellm.tools.convert.convert import Result, convert

__all__ = ["Result", "convert"]
