"""A model folder as Hugging Face lays it out: config.json, tokenizer files, and weights in one or more files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgellm.errors import FileError, FormatError, InvalidArgument
from edgellm.tools.convert import safetensors

INDEX = "model.safetensors.index.json"


class Folder:
    """
    A model folder.

    Attributes:
        path: Where it is.
        config: config.json; a ``text_config`` in it (models that also see or hear) is laid over the rest.
        architecture: What config.json calls the model's class.

    Raises:
        FileError, FormatError, InvalidArgument: It is no model folder, or a file in it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise FileError(f"{path} is not a folder: name the folder that has config.json and the weights")
        config = self.json("config.json")
        if config is None:
            raise FileError(f"{path} has no config.json: name a model folder as Hugging Face has it")
        names = config.get("architectures")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise FormatError(f"config.json names no model class in 'architectures': {names!r}")
        self.architecture: str = names[0]
        text = config.get("text_config")
        self.config: dict[str, Any] = config | text if isinstance(text, dict) else config

    def json(self, name: str) -> dict[str, Any] | None:
        """
        A JSON file of the folder; None if it is not there.

        Raises:
            FormatError: It is damaged.
        """
        found = self._parsed(name)
        if found is not None and not isinstance(found, dict):
            raise FormatError(f"{name} is not a JSON object")
        return found

    def list(self, name: str) -> list[Any] | None:
        """
        The same of a file that has a list.

        Raises:
            FormatError: It is damaged.
        """
        found = self._parsed(name)
        if found is not None and not isinstance(found, list):
            raise FormatError(f"{name} is not a JSON list")
        return found

    def _parsed(self, name: str) -> Any:
        file = self.path / name
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{name} is not JSON: {error}") from None

    def number(self, *names: str, default: Any = None) -> Any:
        """
        The first of *names* that config.json has, a number.

        Raises:
            FormatError: There is none and no default, or it is not a number above 0.
        """
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise FormatError(f"config.json: {name} is {value!r}, it must be a number above 0")
            return value
        if default is None:
            raise FormatError(f"config.json has no '{names[0]}'")
        return default

    def count(self, *names: str, default: int | None = None) -> int:
        """
        The same, a whole number.

        Raises:
            FormatError: See `number`, or it is a fraction.
        """
        value = self.number(*names, default=default)
        if value != int(value) or value >= 1 << 31:
            raise FormatError(f"config.json: {names[0]} is {value!r}, it must be a whole number")
        return int(value)

    def tensors(self) -> dict[str, safetensors.Tensor]:
        """
        All weights by name.

        Raises:
            FileError: A file is missing.
            FormatError: A file is damaged, or the index names a tensor that its file lacks.
            InvalidArgument: The folder has weights only in other formats.
        """
        index = self.json(INDEX)
        if index is None:
            return self._whole()
        places = index.get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise FormatError(f"{INDEX} has no 'weight_map' of names")
        found: dict[str, safetensors.Tensor] = {}
        files = sorted(set(places.values()))
        missing = [name for name in files if Path(name).name != name or not (self.path / name).is_file()]
        if missing:
            raise FileError(f"{len(missing)} of {len(files)} weight files are missing, the first is {missing[0]}")
        for name in files:
            found |= safetensors.read(self.path / name)
        absent = [name for name in places if name not in found]
        if absent:
            raise FormatError(f"{places[absent[0]]} has no tensor '{absent[0]}', which {INDEX} places there")
        return found

    def _whole(self) -> dict[str, safetensors.Tensor]:
        files = sorted(self.path.glob("*.safetensors"))
        if len(files) > 1:
            named = [file for file in files if file.name == "model.safetensors"]
            if not named:
                raise FileError(f"the folder has {len(files)} weight files but no {INDEX}, which says what is in them")
            files = named
        if not files:
            others = sorted(f.name for f in self.path.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".gguf"))
            what = f"only {others[0]}" if others else "none"
            raise InvalidArgument(f"{self.path} has no weights in *.safetensors ({what}): convert reads that format")
        return safetensors.read(files[0])
