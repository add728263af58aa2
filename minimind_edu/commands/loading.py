"""How commands load a model, with LoRA adapters where they are asked for."""

from pathlib import Path
from typing import Protocol

from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.lora import ADAPTER_FOLDER, adapter_names, load_adapter, set_adapter
from minimind_edu.stages.setup import load_model
from minimind_edu.tokenizer import Tokenizer
from minimind_edu.training.precision import resolve_device


class WhichModel(Protocol):
    """The settings that say which model a command uses."""

    from_weight: str
    adapter: str
    device: str


def load(config: WhichModel) -> tuple[MiniMind, Tokenizer]:
    """The model and its tokenizer, with all adapters attached and the first of them active.

    Raises:
        ValueError: there is no model, or an adapter does not fit it.
    """
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    for folder in filter(None, config.adapter.split(",")):
        path = Path(folder.strip())
        if (path / ADAPTER_FOLDER).is_dir():  # the folder of a run
            path = path / ADAPTER_FOLDER
        load_adapter(model, path, adapter_name(path))
    if adapter_names(model):
        set_adapter(model, adapter_names(model)[0])
    return model, tokenizer


def adapter_name(folder: Path) -> str:
    """What to call an adapter: the folder's name, or that of its run."""
    name = folder.resolve().name
    return folder.resolve().parent.name if name == ADAPTER_FOLDER else name
