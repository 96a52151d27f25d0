"""Copies of SMDM's small golden models, as published weights lie in a folder."""

import shutil
from pathlib import Path

from json_tokenizers import word_piece
from small_corpus import texts


def golden_copies(reference_data: Path, folder: Path, *names: str) -> list[str]:
    """The paths of copies in `folder`; a `config.json` and a tokenizer of 90 ids lie beside them.

    Args:
        reference_data: folder of the published data.
        folder: an existing folder.
        names: of the models: mdm, ar.
    """
    files = [f"{name}.safetensors" for name in names]
    for file in (*files, "config.json"):
        shutil.copy(reference_data / "smdm_golden" / file, folder)
    (folder / "tokenizer.json").write_text(word_piece(texts(300), 90))
    return [str(folder / file) for file in files]
