"""Small files `tokenizer.json` of the three kinds that published models have, trained in a moment."""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers


def byte_level(texts: Sequence[str], vocab_size: int = 320, end: str = "<|endoftext|>") -> str:
    """A byte-level BPE, as GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": [end], "show_progress": False}
    made.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, **settings))
    return made.to_str()


def word_piece(texts: Sequence[str], vocab_size: int = 120) -> str:
    """An uncased WordPiece with [CLS] and [SEP] around each text, as BERT's; it also cuts and pads texts to 8 ids."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    settings: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    made.train_from_iterator(texts, trainers.WordPieceTrainer(**settings))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made.to_str()


def llama(texts: Sequence[str], vocab_size: int = 400) -> str:
    """A BPE with byte fallback and U+2581 for blanks, as Llama 2's; `<s>` is put before each text."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    settings: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    made.train_from_iterator(texts, trainers.BpeTrainer(limit_alphabet=30, **settings))
    tree = json.loads(made.to_str())
    tree["added_tokens"] = tree["added_tokens"][:3]  # bytes are pieces of the model, and not special
    made = Tokenizer.from_str(json.dumps(tree))
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return made.to_str()


def changed(text: str, **changes: Any) -> str:
    """The file with other values of some keys; `model__dropout` is the key `dropout` of `model`."""
    tree = json.loads(text)
    for name, value in changes.items():
        *folders, last = name.split("__")
        place = tree
        for folder in folders:
            place = place[folder]
        place[last] = value
    return json.dumps(tree)
