"""How a sentence's vector comes from its tokens', as sentence-transformers' modules.json says it."""

from __future__ import annotations

import gguf

from edgellm.errors import FormatError, Unsupported
from edgellm.tools.convert.families import Family
from edgellm.tools.convert.folder import Folder

_FLAGS = {  # of the pooling module's config.json, and the name newer ones have for the same
    "pooling_mode_mean_tokens": ("mean", gguf.PoolingType.MEAN),
    "pooling_mode_cls_token": ("cls", gguf.PoolingType.CLS),
    "pooling_mode_lasttoken": ("lasttoken", gguf.PoolingType.LAST),
}


def write(folder: Folder, family: Family, writer: gguf.GGUFWriter, warnings: list[str]) -> None:
    """
    Add the pooling's key, and a classifier's labels.

    Raises:
        FormatError: modules.json is damaged.
        Unsupported: It pools in a way the runtime does not.
    """
    if folder.architecture == "BertForSequenceClassification":
        writer.add_pooling_type(gguf.PoolingType.RANK)
        labels = folder.config.get("id2label")
        if isinstance(labels, dict) and labels.get("0") != "LABEL_0":
            writer.add_classifier_output_labels([str(labels[key]) for key in sorted(labels, key=int)])
        return
    kind = _kind(folder)
    if kind is not None:
        writer.add_pooling_type(kind)
    elif family.encoder:
        warnings.append("the folder does not say how to pool (no modules.json): say it when you embed")


def _kind(folder: Folder) -> gguf.PoolingType | None:
    for module in folder.list("modules.json") or []:
        if not isinstance(module, dict) or not isinstance(module.get("path"), str):
            raise FormatError(f"modules.json has a damaged entry: {str(module)[:100]}")
        if not str(module.get("type")).endswith("Pooling"):
            continue
        config = folder.json(f"{module['path']}/config.json") or {}
        for flag, (name, kind) in _FLAGS.items():
            if config.get(flag) or config.get("pooling_mode") == name:
                return kind
        raise Unsupported(f"{module['path']}/config.json: the runtime pools by mean, cls or last token only")
    return None
