"""LangChain's client for OpenAI."""

import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from checks import BASE, KEY, MODEL, check, inject, needs_faults, raises, run

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


if __name__ == "__main__":
    run("langchain-openai")
