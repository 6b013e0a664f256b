"""Writes a model of the llama architecture with random weights for llama.cpp, about 400 KB."""

import random
import struct
import sys

WORDS = "a the far near sea sky ship light wind star see can you we it is and of to in on not as high low cold warm red blue".split()
WIDTH, INNER, HEADS, CONTEXT = 64, 128, 4, 32768
UINT32, FLOAT32, INT32, STRING, ARRAY = 4, 6, 5, 8, 9
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    if kind == STRING:
        return text(v)
    return struct.pack({UINT32: "<I", FLOAT32: "<f", INT32: "<i"}[kind], v)


def field(key, kind, v):
    if isinstance(v, list):
        return text(key) + struct.pack("<IIQ", ARRAY, kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def write(path):
    rnd = random.Random(1)
    # Any text can be written in bytes; only words are ever generated.
    tokens = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens += [(f"<0x{i:02X}>", BYTE) for i in range(256)] + [("\u2581" + w, NORMAL) for w in WORDS]
    first, count = len(tokens) - len(WORDS), len(tokens)
    fields = [
        field("general.architecture", STRING, "llama"), field("general.name", STRING, "tiny"),
        field("llama.context_length", UINT32, CONTEXT), field("llama.embedding_length", UINT32, WIDTH),
        field("llama.block_count", UINT32, 1), field("llama.feed_forward_length", UINT32, INNER),
        field("llama.attention.head_count", UINT32, HEADS), field("llama.rope.dimension_count", UINT32, WIDTH // HEADS),
        field("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        field("tokenizer.ggml.model", STRING, "llama"),
        field("tokenizer.ggml.tokens", STRING, [t for t, _ in tokens]),
        field("tokenizer.ggml.scores", FLOAT32, [-float(i) for i in range(count)]),
        field("tokenizer.ggml.token_type", INT32, [k for _, k in tokens]),
        field("tokenizer.ggml.bos_token_id", UINT32, 1), field("tokenizer.ggml.eos_token_id", UINT32, 2),
        field("tokenizer.ggml.unknown_token_id", UINT32, 0),
        field("tokenizer.chat_template", STRING, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"),
    ]

    def noise(n, scale=0.1):
        return [rnd.gauss(0, scale) for _ in range(n)]

    ones = [1.0] * WIDTH
    tensors = [("token_embd.weight", [WIDTH, count], noise(WIDTH * count, 1)), ("output_norm.weight", [WIDTH], ones),
               ("output.weight", [WIDTH, count], [0.0] * (WIDTH * first) + noise(WIDTH * (count - first), 1)),
               ("blk.0.attn_norm.weight", [WIDTH], ones), ("blk.0.ffn_norm.weight", [WIDTH], ones)]
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors.append((f"blk.0.{name}.weight", [WIDTH, WIDTH], noise(WIDTH * WIDTH)))
    for name, shape in (("ffn_gate", [WIDTH, INNER]), ("ffn_up", [WIDTH, INNER]), ("ffn_down", [INNER, WIDTH])):
        tensors.append((f"blk.0.{name}.weight", shape, noise(WIDTH * INNER)))

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    offset = 0
    for name, shape, data in tensors:
        out += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        out += struct.pack("<IQ", 0, offset)  # 32-bit floats
        offset += -(-4 * len(data) // 32) * 32
    out += b"\0" * (-len(out) % 32)
    for _, _, data in tensors:
        out += struct.pack(f"<{len(data)}f", *data) + b"\0" * (-4 * len(data) % 32)
    with open(path, "wb") as f:
        f.write(out)


if __name__ == "__main__":
    write(sys.argv[1])
