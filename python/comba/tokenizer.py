"""The tokenizer that a model of the program `comba` was trained with: the same ids, in Python."""

import base64
import json
import os
import pathlib
import struct

from comba.checkpoints import model_directory
from comba.data_helper import describe_tokenizer

FILE = "comba_tokenizer.json"


class Tokenizer:
    """Text to ids and back.

    Attributes:
        bos: the id that opens every document; encode() does not put it there.
        vocab: number of ids.
    """

    def __init__(self, content: dict):
        """Of the content of a comba_tokenizer.json: type "bytes", "sentencepiece" or "table"."""
        kinds = {"bytes": _Bytes, "sentencepiece": _SentencePiece, "table": _Table}
        kind = content.get("type")
        if kind not in kinds:
            raise ValueError(f"[Tokenizer] type must be {', '.join(kinds)}; got {kind!r}")
        self.content = content
        self._kind = kinds[kind](content)
        self.vocab, self.bos = self._kind.vocab, self._kind.bos

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike) -> "Tokenizer":
        """Of a model directory or a run: its comba_tokenizer.json, or else its tokenizer.json."""
        directory = model_directory(directory)
        if (directory / FILE).is_file():
            return cls(json.loads((directory / FILE).read_text(encoding="utf-8")))
        if (directory / "tokenizer.json").is_file():
            file = (directory / "tokenizer.json").read_bytes()
            try:
                description = describe_tokenizer(file)[1]
            except SystemExit as problem:  # what the program would show
                raise ValueError(f"[Tokenizer] {directory}: {problem}") from None
            return cls({**description, "file": base64.b64encode(file).decode()})
        raise FileNotFoundError(f"[Tokenizer] {directory} must hold {FILE} or tokenizer.json; it has neither")

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes comba_tokenizer.json, which the program needs beside a model to read and write text."""
        (pathlib.Path(directory) / FILE).write_text(json.dumps(self.content), encoding="utf-8")

    def encode(self, text: str, starts_document: bool = True) -> list[int]:
        """The ids of a text, without BOS. starts_document: nothing comes before it."""
        return self._kind.encode(text, starts_document) if text else []

    def decode(self, ids: list[int]) -> str:
        """The text of ids, without what BOS and padding rows would stand for. Broken UTF-8 becomes U+FFFD."""
        return self._kind.decode([id for id in ids if id != self.bos and id < self.vocab])


class _Bytes:
    vocab, bos = 257, 256

    def __init__(self, content: dict):
        pass

    def encode(self, text: str, starts_document: bool) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


class _SentencePiece:
    def __init__(self, content: dict):
        from sentencepiece import SentencePieceProcessor as processor

        model = base64.b64decode(content["model"])
        self.first = processor(model_proto=model)
        # A protocol buffer with something behind it takes that over: normalizer_spec (field 3) of add_dummy_prefix
        # (field 3) and remove_extra_whitespaces (field 4), both false, as within a document.
        self.later = processor(model_proto=model + bytes([0x1A, 4, 0x18, 0, 0x20, 0]))
        bos = self.first.bos_id()
        self.bos = bos if bos >= 0 else self.first.vocab_size()
        self.vocab = self.first.vocab_size() + (bos < 0)

    def encode(self, text: str, starts_document: bool) -> list[int]:
        return (self.first if starts_document else self.later).encode(text)

    def decode(self, ids: list[int]) -> str:
        return self.first.decode(ids)


class _Table:
    def __init__(self, content: dict):
        import tokenizers

        self.tool = tokenizers.Tokenizer.from_buffer(base64.b64decode(content["file"]))
        blob = base64.b64decode(content["pieces"])
        self.pieces = []
        while blob:
            size = struct.unpack_from("<I", blob)[0]
            self.pieces.append(blob[4 : 4 + size])
            blob = blob[4 + size :]
        self.bos = content["bos"] if content["bos"] >= 0 else len(self.pieces)
        self.vocab = len(self.pieces) + (content["bos"] < 0)

    def encode(self, text: str, starts_document: bool) -> list[int]:
        return self.tool.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.pieces[id] for id in ids).decode(errors="replace")
