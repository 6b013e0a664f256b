"""Hashes of prompts as docs/prompts.md describes them, in Python without a library.

Each function of the first part is one to copy for a caller that sends prefix_hashes. The
second part checks it against api/prompt-hashes.json, which other languages can do too.
"""

import json
import pathlib
import sys

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def xxh64(data, seed=0):
    """XXH64, as xxhash.xxh64_intdigest of the package xxhash computes it."""

    def rotl(x, n):
        return (x << n | x >> 64 - n) & MASK

    def step(acc, lane):
        return rotl((acc + lane * P2) & MASK, 31) * P1 & MASK

    def word(at, size):
        return int.from_bytes(data[at:at + size], "little")

    i = 0
    if len(data) >= 32:
        accs = [(seed + P1 + P2) & MASK, (seed + P2) & MASK, seed, (seed - P1) & MASK]
        while i + 32 <= len(data):
            accs = [step(a, word(i + 8 * n, 8)) for n, a in enumerate(accs)]
            i += 32
        h = sum(rotl(a, n) for a, n in zip(accs, (1, 7, 12, 18))) & MASK
        for a in accs:
            h = ((h ^ step(0, a)) * P1 + P4) & MASK
    else:
        h = (seed + P5) & MASK
    h = (h + len(data)) & MASK
    while i + 8 <= len(data):
        h = (rotl(h ^ step(0, word(i, 8)), 27) * P1 + P4) & MASK
        i += 8
    if i + 4 <= len(data):
        h = (rotl(h ^ word(i, 4) * P1 & MASK, 23) * P2 + P3) & MASK
        i += 4
    for byte in data[i:]:
        h = rotl(h ^ byte * P5 & MASK, 11) * P1 & MASK
    h = (h ^ h >> 33) * P2 & MASK
    h = (h ^ h >> 29) * P3 & MASK
    return h ^ h >> 32


def hashes(text):
    """The prefix_hashes of a canonical text."""
    chain, at, last = [], 0, 0
    while len(chain) < 4096:
        size = 256 if at < 4096 else 2048
        if at + size > len(text):
            break
        last = xxh64(text[at:at + size], last)
        chain.append(f"{last:016x}")
        at += size
    return chain


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def field(mark, value):
    """A mark, and what a string means or other JSON."""
    if value is None:
        return mark
    return mark + (value.encode() if isinstance(value, str) else canonical(value))


def some(mark, text):
    return field(mark, text) if text else b""


def other(value):
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k not in ("id", "call_id", "status", "cache_control")}
    return b"\xf9" + canonical(value)


def tool(t):
    f = next((t[k] for k in ("function", "custom") if isinstance(t.get(k), dict)), t)
    if f.get("type", "function") not in ("function", "custom") or not isinstance(f.get("name"), str):
        return b"\xf8" + other(t)
    schema = next((f[k] for k in ("parameters", "input_schema", "format") if k in f), None)
    return field(b"\xf8", f["name"]) + field(b"\xf7", f.get("description")) + field(b"\xf7", schema)


def call(name, arguments):
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
            arguments = parsed if isinstance(parsed, dict) else arguments
        except ValueError:
            pass
    return field(b"\xfc", name) + field(b"\xf7", arguments)


def media(url):
    return b"\xfd" + f"{xxh64(url.encode()):016x}".encode()


def source(s):
    if isinstance(s, str):
        return media(s)
    if s.get("type") == "text" and isinstance(s.get("data"), str):
        return content(s["data"])
    if s.get("content") is not None:
        return content(s["content"])
    if isinstance(s.get("data"), str):
        kind = s.get("media_type") or s.get("format")
        if kind is None:
            return media(s["data"])
        return media(f"data:{kind if '/' in kind else 'audio/' + kind};base64,{s['data']}")
    url = next((s[k] for k in ("url", "file_data", "file_url", "file_id") if isinstance(s.get(k), str)), None)
    return other(s) if url is None else media(url)


SOURCES = ("image_url", "video_url", "audio_url", "input_audio", "file", "source", "file_data", "file_url", "file_id")


def part(p):
    if isinstance(p, str):
        return content(p)
    kind = p.get("type", "") if isinstance(p, dict) else None
    if kind in ("", "text", "input_text", "output_text") and isinstance(p.get("text"), str):
        return content(p["text"])
    if kind in ("image_url", "video_url", "audio_url", "input_audio", "file", "input_image", "input_file", "image", "document"):
        found = next((p[k] for k in SOURCES if p.get(k) is not None), None)
        if found is not None:
            return source(found)
    if kind == "refusal":
        return some(b"\xfa", p["refusal"])
    if kind == "thinking":
        return some(b"\xfb", p["thinking"])
    if kind == "tool_use":
        return call(p["name"], p.get("input"))
    return other(p)


def content(c):
    if c is None or c == "":
        return b""
    if isinstance(c, str):
        return field(b"\xfe", c)
    return b"".join(part(p) for p in c) if isinstance(c, list) else other(c)


def begin(role, name=None):
    return field(b"\xff", role) + (field(b"\xf7", name) if isinstance(name, str) and role != "tool" else b"")


def item(m, last):
    """A message or another item of a conversation; last is the role of the one before."""
    kind = m.get("type", "message")
    if kind == "function_call":
        return (b"" if last == "assistant" else begin("assistant")) + call(m["name"], m["arguments"]), "assistant"
    if kind == "function_call_output":
        return begin("tool") + content(m["output"]), "tool"
    if kind == "reasoning":
        reasons = (m.get("summary") or []) + (m.get("content") or [])
        return begin("assistant") + b"".join(some(b"\xfb", r["text"]) for r in reasons), "assistant"
    if kind != "message":
        return b"\xff" + other(m), None
    role, c = m["role"], m.get("content")
    if role == "user" and isinstance(c, list) and any(isinstance(p, dict) and p.get("type") == "tool_result" for p in c):
        text, begun = b"", False
        for p in c:
            if isinstance(p, dict) and p.get("type") == "tool_result":
                text, begun = text + begin("tool") + content(p.get("content")), False
            else:
                text, begun = text + (b"" if begun else begin("user", m.get("name"))) + part(p), True
        return text, "user"
    text = begin(role, m.get("name")) + some(b"\xfb", m.get("reasoning_content") or m.get("reasoning"))
    text += content(c) + some(b"\xfa", m.get("refusal"))
    calls = (m.get("tool_calls") or []) + ([m["function_call"]] if m.get("function_call") else [])
    for t in calls:
        f = t.get("function") or t.get("custom") or t
        text += call(f["name"], f.get("arguments", f.get("input")))
    return text, role


def messages(m):
    if isinstance(m, str):
        return begin("user") + content(m) if m else b""
    text, last = b"", None
    for i in m or []:
        t, last = item(i, last)
        text += t
    return text


def plain(p):
    if p is None:
        return b""
    if isinstance(p, str):
        return p.encode()
    if isinstance(p, dict):
        return field(b"\xf9", p)
    if p and isinstance(p[0], int):
        return b"\xf6" + canonical(p)[:-1]
    if p and isinstance(p[0], list):
        return b"".join(b"\xf6" + canonical(t)[:-1] for t in p)
    return b"\xf7".join(t.encode() for t in p)


def canonical_text(body):
    """The canonical text of a request."""
    text = b"".join(tool(t) for t in body.get("tools") or [])
    text += some(b"\xf5", body.get("previous_response_id"))
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if conversation:
        text += b"\xf5" + field(b"\xf7", conversation)
    for name in ("system", "instructions"):
        if body.get(name):
            text += begin("system") + content(body[name])
    text += b"".join(b"\xf9" + canonical(d) for d in body.get("documents") or [])
    return text + messages(body.get("messages")) + messages(body.get("input")) + plain(body.get("prompt"))


def main():
    vectors = json.loads((pathlib.Path(__file__).parents[2] / "api/prompt-hashes.json").read_text())["vectors"]
    for v in vectors:
        text = canonical_text(v["body"])
        assert text.hex() == v["text_hex"], (v["name"], text)
        assert hashes(text) == v["hashes"], v["name"]
    print(f"{len(vectors)} vectors agree")


if __name__ == "__main__":
    sys.exit(main())
