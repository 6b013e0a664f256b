"""What the programs of all Python clients share: where to ask, and how to report."""

import json
import os
import sys
import time
import traceback
import urllib.request

BASE = os.environ["HEADWAY_TEST_BASE_URL"].rstrip("/")
FAULTS = os.environ.get("HEADWAY_TEST_FAULTS_URL", "")
MODEL = os.environ.get("HEADWAY_TEST_MODEL", "llama-3.1-8b")
KEY = os.environ.get("HEADWAY_TEST_KEY", "none")

_checks = []


def check(f):
    """Registers a function as a check; its name is what is reported."""
    _checks.append(f)
    return f


def _faults(method, body=None):
    data = None if body is None else json.dumps(body).encode()
    req = urllib.request.Request(FAULTS, data=data, method=method)
    urllib.request.urlopen(req, timeout=30).close()


def inject(**fault):
    """Makes the next requests of a head fail."""
    _faults("POST", {"times": 1, **fault})


def needs_faults(f):
    f.faults = True
    return f


def raises(kind, call):
    """The error of a call that must fail with this class."""
    try:
        call()
    except Exception as e:
        assert isinstance(e, kind), f"{type(e).__name__}: {e}, want {kind.__name__}"
        return e
    raise AssertionError(f"no {kind.__name__}")


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
        if getattr(f, "faults", False) and not FAULTS:
            skipped += 1
            print(f"skip  {name} (no head to break)", flush=True)
            continue
        try:
            f()
            print(f"ok    {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
        finally:
            if FAULTS:
                _faults("DELETE")
    print(f"{client}: {len(_checks) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)
