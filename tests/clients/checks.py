"""What the programs of all Python clients share: where to ask, and how to report."""

import json
import os
import sys
import time
import traceback
import urllib.error
import urllib.request

BASE = os.environ["HEADWAY_TEST_BASE_URL"].rstrip("/")
FAULTS = os.environ.get("HEADWAY_TEST_FAULTS_URL", "")
MODEL = os.environ.get("HEADWAY_TEST_MODEL", "llama-3.1-8b")
KEY = os.environ.get("HEADWAY_TEST_KEY", "none")
# Only where the service itself is tried, not a head.
ALIAS = os.environ.get("HEADWAY_TEST_ALIAS", "")
CONTROL = os.environ.get("HEADWAY_TEST_CONTROL_URL", "")
VIEWER_KEY = os.environ.get("HEADWAY_TEST_VIEWER_KEY", "")
LIMITED_KEY = os.environ.get("HEADWAY_TEST_LIMITED_KEY", "")  # two requests a minute
ADMIN_KEY = os.environ.get("HEADWAY_TEST_ADMIN_KEY", "")
MAX_BODY = int(os.environ.get("HEADWAY_TEST_MAX_BODY", "0"))

_checks = []


def check(f):
    """Registers a function as a check; its name is what is reported."""
    _checks.append(f)
    return f


def _call(url, method, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=60) as r:
            return r.read()
    except urllib.error.HTTPError as e:
        raise AssertionError(f"{method} {url}: {e.read().decode()}") from None


def inject(**fault):
    """Makes the next request of each head fail, once none does any more."""
    heal()
    _call(FAULTS, "POST", {"times": 1, **fault})


def inject_into_one(**fault):
    """Makes the next request of one head fail, once none does any more."""
    heal()
    _call(FAULTS + "?heads=1", "POST", {"times": 1, **fault})


def heal():
    _call(FAULTS, "DELETE")


def kill():
    """Kills a head that works, and starts it again."""
    _call(CONTROL + "/kill", "POST")


def idle():
    """Waits until no head works."""
    until("no head works", lambda: _call(CONTROL + "/running", "GET") == b"0")


def until(what, ok):
    end = time.monotonic() + 30
    while not ok():
        assert time.monotonic() < end, f"gave up waiting until {what}"
        time.sleep(0.02)


def needs_faults(f):
    f.faults = True
    return f


def needs_headway(f):
    f.headway = True
    return f


def raises(kind, call):
    """The error of a call that must fail with this class, or one of these."""
    try:
        call()
    except Exception as e:
        assert isinstance(e, kind), f"{type(e).__name__}: {e}, want {kind}"
        return e
    raise AssertionError(f"no {kind}")


def takes(at_least, call):
    began = time.monotonic()
    result = call()
    took = time.monotonic() - began
    assert took >= at_least, f"took {took:.2f} s, want {at_least} s at least"
    return result


def run(client):
    failed = skipped = 0
    for f in _checks:
        name = f"{client}: {f.__name__.replace('_', ' ')}"
        if getattr(f, "faults", False) and not FAULTS or getattr(f, "headway", False) and not ALIAS:
            skipped += 1
            print(f"skip  {name}", flush=True)
            continue
        try:
            f()
            print(f"ok    {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
        finally:
            if FAULTS:
                heal()
    print(f"{client}: {len(_checks) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
