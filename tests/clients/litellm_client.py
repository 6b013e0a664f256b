"""litellm as a client of an OpenAI endpoint."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks other hosts otherwise
os.environ["HF_HUB_OFFLINE"] = "1"

import litellm  # noqa: E402
import openai  # noqa: E402

from checks import ALIAS, BASE, KEY, MODEL, VIEWER_KEY, check, inject, kill, needs_faults, needs_headway, raises, run  # noqa: E402

litellm.telemetry = False
litellm.suppress_debug_info = True
OPTIONS = {"model": "openai/" + MODEL, "api_base": BASE + "/v1", "api_key": KEY, "max_retries": 0, "num_retries": 0, "timeout": 60}
HELLO = [{"role": "user", "content": "How far can you see?"}]


def chat(**more):
    return litellm.completion(**{**OPTIONS, "messages": HELLO, "max_tokens": 8, **more})


@check
def chats():
    r = chat()
    assert r.choices[0].message.content and r.usage.total_tokens > 0, r


@check
def streams_with_usage():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert any(getattr(c, "usage", None) for c in chunks), chunks[-1]


@check
def embeds():
    assert len(litellm.embedding(**OPTIONS, input=["one", "two"]).data) == 2


@check
def names_errors():
    raises(litellm.NotFoundError, lambda: chat(model="openai/no-such-model"))
    raises(litellm.BadRequestError, lambda: chat(max_tokens=0))


@check
@needs_faults
def names_errors_of_the_server():
    inject(kind="status", status=429, retry_after="1")
    raises(litellm.RateLimitError, chat)
    inject(kind="status", status=503)
    raises(litellm.ServiceUnavailableError, chat)


@check
@needs_headway
def finds_a_model_by_its_alias():
    assert chat(model="openai/" + ALIAS).choices[0].message.content


@check
@needs_headway
def names_what_it_is_refused():
    raises(litellm.AuthenticationError, lambda: chat(api_key="wrong"))
    assert raises(litellm.APIError, lambda: chat(api_key=VIEWER_KEY)).status_code == 403
    raises(litellm.ServiceUnavailableError, lambda: chat(model="openai/resting-model"))


@check
@needs_headway
def notices_a_head_that_dies():
    s = chat(stream=True, max_tokens=100_000, extra_body={"ignore_eos": True})
    for _ in range(5):
        next(s)
    kill()
    raises(openai.OpenAIError, lambda: list(s))
    assert chat().choices


if __name__ == "__main__":
    run("litellm")
