"""LangChain's client for OpenAI."""

import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from checks import ALIAS, BASE, KEY, MODEL, check, idle, inject, kill, needs_faults, needs_headway, raises, run

OPTIONS = {"model": MODEL, "base_url": BASE + "/v1", "api_key": KEY, "max_retries": 0}


def model(**more):
    return ChatOpenAI(**{**OPTIONS, "max_tokens": 8, "timeout": 60, **more})


@check
def invokes():
    r = model().invoke("How far can you see?")
    assert r.content and r.usage_metadata["total_tokens"] > 0, r


@check
def streams():
    chunks = list(model(stream_usage=True).stream("How far can you see?"))
    assert "".join(c.content for c in chunks) and any(c.usage_metadata for c in chunks)


@check
def embeds():
    e = OpenAIEmbeddings(**OPTIONS, check_embedding_ctx_length=False)
    assert len(e.embed_documents(["one", "two"])) == 2


@check
def names_an_unknown_model():
    raises(openai.NotFoundError, lambda: model(model="no-such-model").invoke("hi"))


@check
@needs_faults
def names_errors_of_the_server():
    inject(kind="status", status=429, retry_after="1")
    raises(openai.RateLimitError, lambda: model().invoke("hi"))


@check
def binds_tools():
    r = model(max_tokens=None).bind_tools([look], tool_choice="required").invoke("What is it?")
    assert r.tool_calls[0]["name"] == "look", r


def look() -> str:
    """Looks."""
    return ""


@check
@needs_headway
def finds_a_model_by_its_alias():
    assert model(model=ALIAS).invoke("hi").response_metadata["model_name"] == ALIAS


@check
@needs_headway
def is_refused_without_a_right_key():
    raises(openai.AuthenticationError, lambda: model(api_key="wrong").invoke("hi"))


@check
@needs_headway
def leaves_and_notices_a_head_that_dies():
    s = model(max_tokens=100_000, extra_body={"ignore_eos": True}).stream("hi")
    next(s)
    s.close()
    idle()
    s = model(max_tokens=100_000, extra_body={"ignore_eos": True}).stream("hi")
    for _ in range(5):
        next(s)
    kill()
    raises(openai.APIError, lambda: list(s))
    assert model().invoke("hi").content


if __name__ == "__main__":
    run("langchain-openai")
