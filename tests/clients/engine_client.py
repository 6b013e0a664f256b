"""The official clients at an engine that is not ours: llama.cpp's server with a tiny model."""

import anthropic
import openai

from checks import ALIAS, BASE, KEY, MODEL, check, idle, kill, raises, run

client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0, timeout=60)
HELLO = [{"role": "user", "content": "How far can you see?"}]


def chat(**more):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 8, **more})


@check
def lists_its_model():
    assert [m.id for m in client.models.list()] == [MODEL]


@check
def chats():
    r = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, max_tokens=8)
    answer = r.parse()
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 8, answer
    assert r.headers["x-headway-attempts"] == "1" and r.headers["x-headway-region"] == "here", r.headers


@check
def streams_with_and_without_usage():
    chunks = list(chat(stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    assert all(c.choices and c.usage is None for c in chunks), chunks[-1]
    last = list(chat(stream=True, stream_options={"include_usage": True}))[-1]
    assert last.usage.completion_tokens == 8 and not last.choices, last


@check
def completes_and_responds():
    assert client.completions.create(model=MODEL, prompt="far", max_tokens=4).choices[0].text
    events = list(client.responses.create(model=MODEL, input="How far?", max_output_tokens=8, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]


@check
def answers_anthropics_client():
    with anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0).messages.stream(model=MODEL, max_tokens=8, messages=HELLO) as s:
        final = s.get_final_message()
    assert final.content[0].text and final.usage.output_tokens == 8, final


@check
def learns_what_is_wrong():
    raises(openai.BadRequestError, lambda: chat(response_format={"type": "nonsense"}))
    raises(openai.NotFoundError, lambda: chat(model="no-such-model"))
    raises(openai.APIStatusError, lambda: chat(model=ALIAS))  # of a model that no head serves here


@check
def leaves_in_the_middle_of_a_stream():
    s = chat(stream=True, max_tokens=30_000)
    next(iter(s))
    s.close()
    idle()


@check
def notices_an_engine_that_is_killed():
    s = chat(stream=True, max_tokens=30_000)
    events = iter(s)
    for _ in range(3):
        next(events)
    kill()
    raises(openai.APIError, lambda: list(events))
    # The other one answers at once, and this one again.
    for _ in range(8):
        assert chat().choices[0].message.content


if __name__ == "__main__":
    run("llama.cpp behind Headway")
