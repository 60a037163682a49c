"""The scripts of cross/ are programs beside the package: their folder goes onto the path here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "cross"))
