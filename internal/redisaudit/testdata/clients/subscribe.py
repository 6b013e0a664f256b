"""Subscribes with the defaults of redis-py: subscribe.py PROTOCOL PORT CHANNEL

It prints "ready" once it is subscribed, what it receives until that says
"last", and "done" when everything else has been answered as well.
"""
import sys

import redis

protocol, port, channel = sys.argv[1:]
options = {} if protocol == "default" else {"protocol": int(protocol)}
client = redis.Redis(host="127.0.0.1", port=int(port), client_name="python", decode_responses=True, **options)
pong = client.ping()
name = client.client_getname()
info = client.info()
assert info["loading"] == 0, info
p = client.pubsub()
p.subscribe(channel)
p.psubscribe("audit:*")


def receive(kinds):
    while True:
        m = p.get_message(timeout=60)
        assert m is not None, "nothing came"
        if m["type"] in kinds:
            return m


counts = [receive(["subscribe"])["data"], receive(["psubscribe"])["data"]]
print("ready", flush=True)
matched, line = 0, ""
while line != "last" or matched < 2:
    m = receive(["message", "pmessage"])
    if m["type"] == "pmessage":
        assert m["pattern"] == "audit:*" and m["channel"] == channel, m
        matched += 1
        continue
    line = m["data"]
    print("message", m["channel"], line, flush=True)
if protocol == "2":  # with RESP3 it does not find the answer of any server
    p.ping()
    receive(["pong"])
p.unsubscribe()
receive(["unsubscribe"])
p.punsubscribe()
left = receive(["punsubscribe"])["data"]
p.close()
after = client.ping()
assert client.execute_command("RESET") == "RESET"
client.close()
print("done", "PONG" if pong else pong, *counts, matched, left, "PONG" if after else after, name, flush=True)
