"""The official anthropic client for Python."""

import anthropic

from checks import BASE, KEY, MODEL, VIEWER_KEY, check, idle, inject, kill, needs_faults, needs_headway, raises, run

client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "How far can you see?"}]


def send(**more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 8, "messages": HELLO, **more})


@check
def sends_a_message():
    r = send(system="Be kind.")
    assert r.model == MODEL and r.content[0].text and r.usage.output_tokens > 0 and r.stop_reason, r


@check
def streams():
    with client.messages.stream(model=MODEL, max_tokens=8, messages=HELLO) as s:
        text = "".join(s.text_stream)
        final = s.get_final_message()
    assert text and final.content[0].text == text and final.usage.output_tokens > 0 and final.stop_reason, final


@check
def counts_tokens():
    assert client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens > 0


@check
def sends_tools_and_pictures():
    send(tools=[{"name": "look", "input_schema": {"type": "object", "properties": {}}}], messages=[{"role": "user", "content": [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA" * 1000}},
    ]}])


@check
def names_an_unknown_model():
    e = raises(anthropic.NotFoundError, lambda: send(model="no-such-model"))
    assert e.body["type"] == "error" and e.body["error"]["type"] == "not_found_error", e.body


@check
@needs_faults
def names_errors():
    inject(kind="status", status=429, retry_after="1")
    e = raises(anthropic.RateLimitError, send)
    assert e.body["error"]["type"] == "rate_limit_error" and int(e.response.headers["retry-after"]) >= 1, e.body
    for status in (500, 503):
        inject(kind="status", status=status)
        try:
            send()
        except anthropic.APIStatusError as e:
            assert e.status_code == status and e.body["type"] == "error", e.body
        else:
            raise AssertionError(f"no error for {status}")


@check
@needs_faults
def notices_a_stream_that_is_cut():
    inject(kind="cut", after=4)
    try:
        with client.messages.stream(model=MODEL, max_tokens=8, messages=HELLO) as s:
            s.get_final_message()
    except Exception:
        return
    raise AssertionError("a stream that was cut looks whole")


@check
def leaves_in_the_middle_of_a_stream():
    with client.messages.stream(model=MODEL, max_tokens=2000, messages=HELLO) as s:
        next(iter(s.text_stream))
    assert send().content


@check
@needs_headway
def finds_a_model_by_its_alias():
    assert send(model="claude-sonnet-4-5").model == "claude-sonnet-4-5"
    with client.messages.stream(model="claude-sonnet-4-5", max_tokens=8, messages=HELLO) as s:
        assert s.get_final_message().model == "claude-sonnet-4-5"


@check
@needs_headway
def is_refused_in_the_form_of_its_api():
    for kind, name, key, model in ((anthropic.AuthenticationError, "authentication_error", "wrong", MODEL),
                                   (anthropic.PermissionDeniedError, "permission_error", VIEWER_KEY, MODEL),
                                   (anthropic.NotFoundError, "not_found_error", KEY, "no-such-model")):
        e = raises(kind, lambda: client.with_options(api_key=key).messages.create(model=model, max_tokens=8, messages=HELLO))
        assert e.body["type"] == "error" and e.body["error"]["type"] == name, e.body


@check
@needs_headway
def notices_a_head_that_dies():
    with client.messages.stream(model=MODEL, max_tokens=100_000, messages=HELLO, extra_body={"ignore_eos": True}) as s:
        text = iter(s.text_stream)
        for _ in range(5):
            next(text)
        kill()
        raises(anthropic.APIError, lambda: list(text))
    idle()
    assert send().content


if __name__ == "__main__":
    run("anthropic (Python)")
