"""Tokenizers on disk: transformers' `tokenizer.json` and `tokenizer_config.json`, and BERT's `vocab.txt`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from minimind_edu.tokenizer.specials import ROLES, TokenizerError, known_roles

_TOKENIZER, _CONFIG, _TEMPLATE, _WORDPIECE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.txt",
)

_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Fields that name a token for models that also see and hear; written where the vocabulary has the token.
_MEDIA_TOKENS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}


def token_text(value: object) -> str | None:
    """A token as configs give it: a string, or transformers' dict for an AddedToken."""
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else None


# ------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any], str | None]:
    """(the library's tokenizer, the fields of tokenizer_config.json, the chat template or None)."""
    if path.is_dir():
        folder = path
        path = next((folder / name for name in (_TOKENIZER, _WORDPIECE) if (folder / name).is_file()), None)
        if path is None:
            raise TokenizerError(f"{folder}: no {_TOKENIZER} in this folder")
    if not path.is_file():
        raise TokenizerError(f"{path}: no such file or folder")
    if path.suffix == ".txt":
        return read_wordpiece(path), known_roles(_BERT_TOKENS), None
    library = _read_library(path)
    if (path.parent / _CONFIG).is_file():
        return library, *_read_config(path.parent)
    tokens = [token.content for token in library.get_added_tokens_decoder().values()]
    return library, known_roles(tokens), None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: cannot be read ({error})") from error


def _read_library(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(_read_text(path))
    except TokenizerError:
        raise
    except Exception as error:  # the library raises Exception itself
        reason = " ".join(str(error).split())
        raise TokenizerError(f"{path}: not a tokenizer of the tokenizers library ({reason})") from error


def _read_config(folder: Path) -> tuple[dict[str, Any], str | None]:
    path = folder / _CONFIG
    try:
        config = json.loads(_read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise TokenizerError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"{path}: must be a JSON object")
    template = config.pop("chat_template", None)
    if (folder / _TEMPLATE).is_file():  # where newer versions of transformers put it
        template = _read_text(folder / _TEMPLATE)
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{path}: chat_template must be a string")
    return config, template


def read_wordpiece(path: Path) -> tokenizers.Tokenizer:
    """BERT's tokenizer (Devlin et al. 2019) from its vocabulary, one entry a line; line numbers are the ids.

    The file does not say whether the model is uncased: it is where no entry has a capital letter.

    Raises:
        TokenizerError: not UTF-8, an empty line, an entry given twice, or one of the special entries missing.
    """
    entries = _read_text(path).removesuffix("\n").split("\n")
    entries = [entry.removesuffix("\r") for entry in entries]
    vocab = {entry: number for number, entry in enumerate(entries)}
    if "" in vocab or len(vocab) < len(entries):
        raise TokenizerError(f"{path}: a WordPiece vocabulary has a different entry on each line, none empty")
    missing = [token for token in _BERT_TOKENS if token not in vocab]
    if missing:
        raise TokenizerError(f"{path}: not a WordPiece vocabulary, it has no {' '.join(missing)}")
    words = "".join(entry for entry in entries if not entry.startswith("["))
    uncased = not re.search("[A-Z]", words)
    library = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=uncased)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    library.add_special_tokens(list(_BERT_TOKENS))
    return library


# ------------------------------------------------------------------------------------------------- writing


def write_folder(
    folder: Path, library: tokenizers.Tokenizer, config: Mapping[str, Any], template: str | None
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`; what `config` lacks gets MiniMind's values."""
    fields = _default_config(library) | {key: value for key, value in config.items() if value is not None}
    if template is not None:
        fields["chat_template"] = template
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    text = json.dumps(fields, ensure_ascii=False, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _TOKENIZER).write_text(library.to_str(pretty=True), encoding="utf-8")
        (folder / _CONFIG).write_text(text, encoding="utf-8")
        (folder / _TEMPLATE).unlink(missing_ok=True)  # one from an earlier save would win over the config
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be written ({error})") from error


def _default_config(library: tokenizers.Tokenizer) -> dict[str, Any]:
    """Every field of MiniMind's published tokenizer_config.json, but for what Tokenizer itself knows."""
    added = dict(sorted(library.get_added_tokens_decoder().items()))
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    control = [token.content for token in added.values() if token.special]
    names = {token.content for token in added.values()}
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(id): {"content": token.content} | {flag: getattr(token, flag) for flag in flags}
            for id, token in added.items()
        },
        "additional_special_tokens": control[1:],
        **dict.fromkeys(ROLES, None),
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 131072,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        **{field: token for field, token in _MEDIA_TOKENS.items() if token in names},
    }


# -------------------------------------------------------------------------------------- the plain-text twin


def without_special_tokens(spec: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json without its special tokens: no text, whatever it says, gets one of their ids.

    Ids stay as they are. A special token may also be in the model's vocabulary, and merges may even lead to
    it (a special token "user" and a corpus about users), so those entries become unreachable as well.
    """
    model = spec["model"]
    banned = {token["content"] for token in spec["added_tokens"]} - {model.get("unk_token")}
    if isinstance(model.get("vocab"), dict):
        # U+FDD0 is never a character, and no word has a space inside: nothing encodes to such an entry.
        model["vocab"] = {
            f"\ufdd0 {id}" if token in banned else token: id for token, id in model["vocab"].items()
        }
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if banned.isdisjoint(_with_product(merge))]
    return spec | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}


def _with_product(merge: str | list[str]) -> tuple[str, str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right
