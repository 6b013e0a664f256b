"""A head: keeps a model server registered until Ctrl-C. Run: head.py ID ENDPOINT MODEL REGION"""
import json, os, signal, sys, time, urllib.error, urllib.parse, urllib.request

HEADS, KEY = os.environ.get("HEADWAY_SERVER", "http://127.0.0.1:8080").rstrip("/") + "/api/v1/heads", os.environ.get("HEADWAY_TOKEN")

def call(method, path, body=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + KEY} if KEY else {})
    request = urllib.request.Request(HEADS + urllib.parse.quote(path), body and json.dumps(body).encode(), headers, method=method)
    return json.loads(urllib.request.urlopen(request, timeout=10).read() or "{}").get("lease")

def why(e):  # a refusal says in its body what is wrong
    return e.read().decode() if isinstance(e, urllib.error.HTTPError) else e

if len(sys.argv) != 5:
    sys.exit(__doc__)
id, endpoint, model, region = sys.argv[1:]
lease = None
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    while True:
        try:
            lease = lease or call("POST", "", {"id": id, "endpoint": endpoint, "model_types": [model], "region": region})
            lease = call("PUT", f"/{id}/status", {"epoch": lease["epoch"], "status": "active", "load": {"in_flight": 0}})  # yours
        except OSError as e:  # refused, or no answer: register again
            lease = None
            print("Headway:", why(e), file=sys.stderr)
        time.sleep(lease["heartbeat_interval_seconds"] * 0.9 if lease else 2)
except KeyboardInterrupt:  # a head that leaves on purpose is missed by no alert
    try:
        call("DELETE", "/" + id)
    except OSError as e:  # not registered, or no answer: its lease ends by itself
        print("Headway:", why(e), file=sys.stderr)
