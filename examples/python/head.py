"""A head: registers a model server and keeps it registered. Run: head.py ID ENDPOINT MODEL REGION"""
import json, os, sys, time, urllib.error, urllib.request

BASE, KEY = os.environ.get("HEADWAY_SERVER", "http://127.0.0.1:8080"), os.environ.get("HEADWAY_TOKEN")

def call(method, path, body):
    headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + KEY} if KEY else {})
    request = urllib.request.Request(BASE + path, json.dumps(body).encode(), headers, method=method)
    return json.load(urllib.request.urlopen(request, timeout=10))

id, endpoint, model, region = sys.argv[1:5]
lease = None
while True:
    try:
        if lease is None:
            lease = call("POST", "/api/v1/heads", {"id": id, "endpoint": endpoint, "model_types": [model], "region": region})["lease"]
        load = {"in_flight": 0, "queued": 0}  # what your server has now
        lease = call("PUT", f"/api/v1/heads/{id}/status", {"epoch": lease["epoch"], "status": "active", "load": load})["lease"]
    except urllib.error.HTTPError as e:
        if e.code in (404, 409):  # forgotten, or registered by another: register again
            lease = None
        print("refused:", e.code, e.read().decode(), file=sys.stderr)
    except OSError as e:
        print("Headway does not answer:", e, file=sys.stderr)
    time.sleep(lease["heartbeat_interval_seconds"] * 0.9 if lease else 2)
