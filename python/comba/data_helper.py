"""What `comba data` leaves to Python's packages: parquet files, tokenizer.json, training of SentencePiece models.

The program runs this file with a mode and its arguments, and talks to it through stdin and stdout. A failure is one
line on stderr and exit code 1.
"""

import base64
import hashlib
import io
import json
import struct
import sys


def need(package: str):
    try:
        return __import__(package)
    except ImportError:
        sys.exit(f"the Python package {package} is missing: pip install {package}, or name a Python that has it with --python")


def read_message() -> bytes | None:
    """A u32 size and as many bytes; None at the end of the input."""
    size = sys.stdin.buffer.read(4)
    return sys.stdin.buffer.read(struct.unpack("<I", size)[0]) if len(size) == 4 else None


def write_message(content: bytes) -> None:
    sys.stdout.buffer.write(struct.pack("<I", len(content)) + content)
    sys.stdout.buffer.flush()


def parquet(path: str, *columns: str) -> None:
    """The rows as lines of JSON, with these columns only."""
    need("pyarrow")
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            sys.exit(f"there must be a column {missing[0]!r} (see --text-field); got {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(batch_size=1000, columns=list(columns)):
            lines = (json.dumps(row, default=str) + "\n" for row in batch.to_pylist())
            sys.stdout.buffer.write("".join(lines).encode())


def byte_of_character() -> dict[str, int]:
    """How byte-level BPE shows bytes: printable ones as themselves, the others as characters from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in shown}
    for number, byte in enumerate(byte for byte in range(256) if byte not in shown):
        table[chr(256 + number)] = byte
    return table


def decoder_types(decoder: dict | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(decoder_types(part) for part in decoder.get("decoders", [])))


def pieces_of(tokenizer, description: dict) -> list[bytes]:
    """The text that each id stands for."""
    types = decoder_types(description.get("decoder"))
    added = {token["id"]: token for token in description.get("added_tokens", [])}
    if not types & {"ByteLevel", "Metaspace", "ByteFallback", "Replace", "BPEDecoder", "Fuse"} or "BPEDecoder" in types:
        sys.exit(f"the decoder must be byte-level or of SentencePiece's kind; got {', '.join(sorted(types)) or 'none'}")
    to_byte = byte_of_character()

    def piece(id: int) -> bytes:
        text = tokenizer.id_to_token(id)
        if id in added:
            return b"" if added[id]["special"] else added[id]["content"].encode()
        if text is None:
            return b""
        if "ByteLevel" in types:
            return bytes(to_byte[c] for c in text) if all(c in to_byte for c in text) else text.encode()
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        return text.replace("\u2581", " ").encode()

    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    return [piece(id) for id in range(highest + 1)]


def describe_tokenizer(content: bytes):
    """A tool that encodes as the tokenizer.json `content` says, and what decodes its ids (a comba_tokenizer.json)."""
    tokenizers = need("tokenizers")
    try:
        tool = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:
        sys.exit(f"the file must be a tokenizer.json: {error}")
    pieces = pieces_of(tool, json.loads(content))
    names = ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>", "[BOS]", "<|startoftext|>")
    first = tool.encode("a", add_special_tokens=False).ids
    blob = b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces)
    return tool, {
        "type": "table",
        "source_md5": hashlib.md5(content).hexdigest(),
        "bos": next((id for id in map(tool.token_to_id, names) if id is not None), -1),
        "leading_space": bool(first) and pieces[first[0]].startswith(b" "),
        "pieces": base64.b64encode(blob).decode(),
    }


def tokenizer() -> None:
    """Reads what a tokenizer.json holds; sends what C++ needs for decoding, as JSON, then the ids of each text."""
    tool, description = describe_tokenizer(read_message())
    write_message(json.dumps(description).encode())
    while (text := read_message()) is not None:
        ids = tool.encode(text.decode(errors="replace"), add_special_tokens=False).ids
        write_message(struct.pack(f"<{len(ids)}I", *ids))


def train(vocab: str, kind: str, sentences: str, threads: str) -> None:
    """A SentencePiece model of the texts that come in. What it encodes comes back as it was, spaces and all."""
    sentencepiece = need("sentencepiece")

    def texts():
        while (text := read_message()) is not None:
            yield text.decode(errors="replace")

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts(),
            model_writer=model,
            vocab_size=int(vocab),
            hard_vocab_limit=False,
            model_type=kind,
            input_sentence_size=int(sentences),
            shuffle_input_sentence=True,
            num_threads=int(threads),
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            unk_id=0,
            bos_id=1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=3,
        )
    except Exception as error:
        sys.exit(f"SentencePiece refuses to train: {error}")
    write_message(model.getvalue())


if __name__ == "__main__":
    modes = {"parquet": parquet, "tokenizer": tokenizer, "train": train}
    try:
        modes[sys.argv[1]](*sys.argv[2:])
    except BrokenPipeError:  # the program has gone: nobody is there to be told
        sys.stderr.close()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
