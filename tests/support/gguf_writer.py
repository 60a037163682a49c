"""The writer that edgellm.testing ships, under the name the tests know."""

from edgellm.testing.gguf_writer import *  # noqa: F403
