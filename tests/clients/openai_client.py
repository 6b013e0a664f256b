"""The official openai client for Python."""

import asyncio
import base64
import io

import openai

from checks import ALIAS, BASE, KEY, LIMITED_KEY, MAX_BODY, MODEL, VIEWER_KEY, check, idle, inject, inject_into_one, kill, needs_faults, needs_headway, raises, run, takes

client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "How far can you see?"}]


def chat(**more):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 8, **more})


@check
def lists_models():
    ids = [m.id for m in client.models.list()]
    assert MODEL in ids and len(ids) == len(set(ids)), ids
    assert client.models.retrieve(MODEL).id == MODEL


@check
def chats():
    r = chat()
    assert r.model == MODEL and r.choices[0].message.content and r.usage.total_tokens > 0, r
    assert r.choices[0].message.role == "assistant", r


@check
def streams_without_usage():
    chunks = list(chat(stream=True))
    assert all(c.choices for c in chunks), "a chunk without choices that was not asked for"
    assert all(c.usage is None for c in chunks) and all(c.model == MODEL for c in chunks)
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


@check
def streams_with_usage():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices, chunks[-1]


@check
def respects_an_explicit_false():
    chunks = list(chat(stream=True, stream_options={"include_usage": False}))
    assert all(c.choices and c.usage is None for c in chunks), chunks[-1]


@check
def sends_tools_and_pictures():
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    chat(tools=[tool])
    r = chat(tools=[tool], tool_choice="required", max_tokens=None)
    assert r.choices[0].message.tool_calls[0].function.name == "look", r
    picture = "data:image/png;base64," + base64.b64encode(b"x" * 100_000).decode()
    chat(messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]}])


@check
def completes_prompts_of_each_form():
    for prompt, n in (("hi", 1), (["hi", "ho"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)):
        r = client.completions.create(model=MODEL, prompt=prompt, max_tokens=4)
        assert len(r.choices) == n, (prompt, r)


@check
def responds():
    r = client.responses.create(model=MODEL, input="How far?", max_output_tokens=8)
    assert r.output_text and r.usage.total_tokens > 0, r
    events = list(client.responses.create(model=MODEL, input="How far?", max_output_tokens=8, stream=True))
    kinds = [e.type for e in events]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == events[-1].response.output_text


@check
def embeds():
    r = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(r.data) == 2 and len(r.data[0].embedding) > 1 and r.data[0].embedding != r.data[1].embedding
    plain = client.embeddings.create(model=MODEL, input="one", encoding_format="float")
    assert len(plain.data[0].embedding) == len(r.data[0].embedding)
    assert ALIAS or max(abs(a - b) for a, b in zip(plain.data[0].embedding, r.data[0].embedding)) < 1e-6


@check
def hears_and_speaks():
    file = ("speech.wav", io.BytesIO(bytes(range(256)) * 400))
    assert client.audio.transcriptions.create(model=MODEL, file=file).text
    assert client.audio.translations.create(model=MODEL, file=("a.wav", b"\r\n--x" * 100)).text
    assert client.audio.speech.create(model=MODEL, voice="alloy", input="hello").read().startswith(b"RIFF")


@check
def draws():
    r = client.images.generate(model=MODEL, prompt="a red box", n=2)
    assert len(r.data) == 2 and base64.b64decode(r.data[0].b64_json).startswith(b"\x89PNG")
    r = client.images.edit(model=MODEL, prompt="a blue one", image=("a.png", base64.b64decode(r.data[0].b64_json)))
    assert r.data[0].b64_json


@check
def moderates():
    assert client.moderations.create(model=MODEL, input="hi").results[0].flagged is False


@check
def names_an_unknown_model():
    e = raises(openai.NotFoundError, lambda: chat(model="no-such-model"))
    assert e.status_code == 404 and e.body["message"] and "no-such-model" in e.message, e


@check
def names_what_is_wrong():
    e = raises(openai.BadRequestError, lambda: chat(max_tokens=0))
    assert e.status_code == 400, e


@check
@needs_faults
def waits_after_429():
    inject(kind="status", status=429, retry_after="1")
    e = raises(openai.RateLimitError, chat)
    assert int(e.response.headers["retry-after"]) >= 1, e.response.headers
    inject(kind="status", status=429, retry_after="1")
    r = takes(1, lambda: client.with_options(max_retries=1).chat.completions.create(model=MODEL, messages=HELLO, max_tokens=2))
    assert r.choices


@check
@needs_faults
def names_server_errors():
    for status in (500, 503):
        inject(kind="status", status=status)
        e = raises(openai.InternalServerError, chat)
        assert e.status_code == status and e.body["message"], e


@check
@needs_faults
def notices_a_stream_that_is_cut():
    inject(kind="cut", after=3)
    try:
        list(chat(stream=True))
    except Exception:
        return
    raise AssertionError("a stream that was cut looks whole")


@check
@needs_faults
def notices_an_error_in_a_stream():
    inject(kind="error_event", after=2)
    raises(openai.APIError, lambda: list(chat(stream=True)))


@check
def leaves_in_the_middle_of_a_stream():
    for _ in range(3):
        s = endless()
        next(iter(s))
        s.close()
    if ALIAS:
        idle()
    assert chat().choices


def endless():
    """A stream that takes minutes."""
    return chat(stream=True, max_tokens=100_000, extra_body={"ignore_eos": True})


@check
@needs_headway
def leaves_before_the_answer():
    impatient = client.with_options(timeout=0.5)
    raises(openai.APITimeoutError, lambda: impatient.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=100_000, extra_body={"ignore_eos": True}))
    idle()


@check
@needs_headway
def finds_a_model_by_its_alias():
    ids = [m.id for m in client.models.list()]
    assert ALIAS in ids and client.models.retrieve(ALIAS).created == client.models.retrieve(MODEL).created, ids
    assert chat(model=ALIAS).model == ALIAS
    assert {c.model for c in chat(model=ALIAS, stream=True)} == {ALIAS}
    assert client.embeddings.create(model=ALIAS, input="one").model == ALIAS


@check
@needs_headway
def sees_where_its_answer_came_from():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_tokens=4, extra_headers={"x-request-id": "mine-1", "x-headway-region": "eu-west", "x-headway-strategy": "geo_preferred"})
    h = raw.headers
    assert h["x-request-id"] == "mine-1" and h["x-headway-region"] == "eu-west" and h["x-headway-strategy"] == "geo_preferred", h
    assert h["x-headway-decision-id"].startswith("dec_") and h["x-headway-attempts"] == "1" and float(h["x-headway-overhead-ms"]) >= 0, h
    assert "x-headway-head" not in h, "a client may not see the names of heads"


@check
@needs_headway
def is_refused_without_a_right_key():
    for key in ("wrong", "hw_000000000000_wrong"):
        e = raises(openai.AuthenticationError, lambda: client.with_options(api_key=key).chat.completions.create(model=MODEL, messages=HELLO))
        assert e.code == "invalid_api_key", e.body
    raises(openai.PermissionDeniedError, lambda: client.with_options(api_key=VIEWER_KEY).chat.completions.create(model=MODEL, messages=HELLO))


@check
@needs_headway
def is_refused_beyond_its_limit():
    limited = client.with_options(api_key=LIMITED_KEY).chat.completions.with_raw_response
    left = [limited.create(model=MODEL, messages=HELLO, max_tokens=2).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert left == ["1", "0"], left
    e = raises(openai.RateLimitError, lambda: limited.create(model=MODEL, messages=HELLO, max_tokens=2))
    assert e.code == "rate_limit_exceeded" and e.type == "requests" and int(e.response.headers["retry-after"]) >= 1, e.body


@check
@needs_headway
def is_refused_a_body_that_is_too_large():
    e = raises(openai.APIStatusError, lambda: chat(messages=[{"role": "user", "content": "x" * (8 * MAX_BODY)}]))
    assert e.status_code == 413 and e.body["message"], e


@check
@needs_headway
def learns_that_a_model_has_no_head_now():
    e = raises(openai.InternalServerError, lambda: chat(model="resting-model"))
    assert e.status_code == 503 and 1 <= int(e.response.headers["retry-after"]) <= 30, e.response.headers


@check
@needs_headway
@needs_faults
def is_answered_though_a_head_fails():
    for fault in ({"kind": "status", "status": 500}, {"kind": "status", "status": 503}, {"kind": "garbage"}, {"kind": "reset"},
                  {"kind": "reset_request"}, {"kind": "cut", "after": 1}, {"kind": "error_event", "after": 1}):
        for stream in (False, True):
            # The header of a stream is sent before its first content. A reset
            # without an answer may be met by a new connection to the same head.
            another = not stream and fault["kind"] != "reset_request"
            attempts = 1
            inject_into_one(**fault)
            for _ in range(60 if another else 6):
                raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, max_tokens=8, stream=stream)
                answer = raw.parse()
                text = "".join(c.choices[0].delta.content or "" for c in answer) if stream else answer.choices[0].message.content
                assert text, (fault, stream)
                attempts = int(raw.headers["x-headway-attempts"])
                if attempts > 1:
                    break
            assert attempts == 2 or not another, (fault, stream)


@check
@needs_headway
def serves_many_at_once_while_a_head_dies():
    """Each of 24 streams is whole, or raises an error; none is short without one."""
    begun = 0

    async def one(c):
        nonlocal begun
        text, finished = "", None
        try:
            async for chunk in await c.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=6000, stream=True, extra_body={"ignore_eos": True}):
                begun += not text
                text += chunk.choices[0].delta.content or ""
                finished = chunk.choices[0].finish_reason or finished
        except openai.APIError:
            return "error"
        return "whole" if finished == "length" and len(text.split()) >= 2000 else f"short: {finished}, {len(text)} characters"

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0, timeout=60) as c:
            asking = [asyncio.create_task(one(c)) for _ in range(24)]
            while begun < 8:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(kill)
            return await asyncio.gather(*asking)

    ends = asyncio.run(all_of_them())
    assert set(ends) <= {"whole", "error"} and ends.count("whole") >= 5, ends
    idle()


@check
@needs_headway
def notices_a_head_that_dies():
    for _ in range(2):
        s = iter(endless())
        for _ in range(5):
            next(s)
        kill()
        raises(openai.APIError, lambda: list(s))
        for _ in range(4):
            assert chat().choices


if __name__ == "__main__":
    run("openai (Python)")
