"""A tiny real model for tests: a GGUF of random weights, written in well under a second, served by llama.cpp itself.

Real tokenizer, real usage numbers, real errors; only the answers are word salad. The weights come from a fixed seed, so
at temperature 0 an answer is the same on every run. `python -m tests.model_server` serves one by hand.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchway.cli.demo.model import ModelServer, ModelSettings

MODEL_NAME = "tiny-random"
WIDTH, HIDDEN, LAYERS, HEADS = 64, 96, 2, 4
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
WORDS = (
    "a about after all also an and any are as at be because been before but by can come could day do even find "
    "first for from get give go good have he her here him his how if in into is it its just know like look make "
    "man many me more my new no not now of on one only or other our out people say see she so some take tell than "
    "that the their them then there these they thing think this time to two up use very want was way we well were "
    "what when which who will with word work world would year you your"
).split()
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LEVERS = {NORMAL: 1.0, CONTROL: 2.0, UNKNOWN: -9.0, BYTE: -9.0}

missing = [name for name in ("xllamacpp", "gguf", "numpy") if importlib.util.find_spec(name) is None]


def write_tiny_model(path: Path, seed: int = 7) -> None:
    """Writes a random llama of half a megabyte; its vocabulary is bytes, printable characters and 130 words."""
    import gguf
    import numpy

    random = numpy.random.default_rng(seed)
    tokens, types = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)

    def weights(rows: int, columns: int) -> numpy.ndarray:
        return random.normal(0, columns**-0.5, (rows, columns)).astype(numpy.float32)

    # The first dimension is 1 for every token and nothing writes to it: a lever that lets the output rows
    # favour words over raw bytes, so that answers are valid UTF-8 as a trained model's are.
    embedding, output = 8 * weights(len(tokens), WIDTH), 3 * weights(len(tokens), WIDTH)
    output[numpy.array(types) == BYTE] = 0
    embedding[:, 0] = 1
    output[:, 0] = [LEVERS.get(kind, 0.0) for kind in types]
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, numpy.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(WIDTH, numpy.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            # Strong attention makes the answer depend on the whole prompt, so that a mix-up of two lines shows.
            writer.add_tensor(f"blk.{layer}.{name}.weight", _not_into_first(3 * weights(WIDTH, WIDTH), name))
        writer.add_tensor(f"blk.{layer}.ffn_gate.weight", weights(HIDDEN, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", weights(HIDDEN, WIDTH))
        writer.add_tensor(f"blk.{layer}.ffn_down.weight", _not_into_first(weights(WIDTH, HIDDEN), "ffn_down"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[int]]:
    special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    raw = [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    printable = [(chr(code), NORMAL) for code in range(33, 127)]
    words = [(f"\u2581{word}", NORMAL) for word in WORDS]
    pairs = [*special, *raw, ("\u2581", NORMAL), ("\n", NORMAL), *printable, *words]
    return [token for token, _ in pairs], [kind for _, kind in pairs]


def _not_into_first(matrix, name: str):
    if name in {"attn_output", "ffn_down"}:
        matrix[0] = 0
    return matrix


@contextmanager
def tiny_model_server(
    folder: Path, *, slots: int = 4, context: int = 2048, api_key: str | None = None
) -> Iterator[ModelServer]:
    """A running server of the tiny model: `.base_url`, `.settings.name`, `.pid`, `.requests_begun()`; ended on exit."""
    gguf_file = folder / "tiny.gguf"
    write_tiny_model(gguf_file)
    settings = ModelSettings(
        gguf_file, MODEL_NAME, folder / "model.log", slots, threads=1, context=context, api_key=api_key
    )
    with ModelServer(settings) as server:
        yield server


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as somewhere, tiny_model_server(Path(somewhere)) as running:
        print(f"{running.base_url} model={MODEL_NAME}", flush=True)
        sys.stdin.read()
