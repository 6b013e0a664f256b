"""A caller: asks which head, sends the request there, reports how it ended. Run: caller.py MODEL PROMPT"""
import json, os, sys, urllib.error, urllib.request

BASE, KEY = os.environ.get("HEADWAY_SERVER", "http://127.0.0.1:8080").rstrip("/") + "/api/v1/decisions", os.environ.get("HEADWAY_TOKEN")

def post(url, body, key=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + key} if key else {})
    return json.loads(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60).read() or "{}")

if len(sys.argv) != 3:
    sys.exit(__doc__)
model, prompt = sys.argv[1:]
try:
    decision, result = post(BASE, {"model_type": model}, KEY), "error"
except urllib.error.HTTPError as e:  # the body says what is wrong
    sys.exit("Headway: " + e.read().decode())
except OSError as e:
    sys.exit(f"Headway: {e}")
try:
    chat = {"model": decision["model_type"], "messages": [{"role": "user", "content": prompt}]}
    print(post(decision["head"]["endpoint"] + "/v1/chat/completions", chat)["choices"][0]["message"]["content"])
    result = "ok"
finally:
    post(f"{BASE}/{decision['decision_id']}/outcome", {"result": result}, KEY)
