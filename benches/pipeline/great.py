#!/usr/bin/env python3
"""One feed with many followers: what a post costs when it is told to each of them, and when it is merged at read.

    make release && benches/pipeline/great.py

In one process, FOLLOWERS home feeds come to follow one feed; then it gets POSTS items, one after the other. Once with a
`fanout.max` above the followers (told), once below (merged). For each it prints the CPU time of a post until everything is
committed, how long that took, the size of the shards' files, and what reading home feeds costs then: of READ different
keys, each once, so that none is a hit.
"""

import argparse
import http.client
import json
import subprocess
import tempfile
import time
from pathlib import Path

from end_to_end import ROOT, cpu, ready, state, waiting

CONFIG = """
[proxy]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[ingest]
listen = "127.0.0.1:0"
[queue]
dir = "{folder}/queue"
[dispatcher]
[shard_map]
count = {shards}
[shards]
dir = "{folder}/shards"
[[source]]
name = "social"
path = "/events/social"
type = "{{type}}"
id = "{{id}}"
time = "{{time}}"
[[projection]]
name = "posts"
kind = "feed"
where = {{ type = "post" }}
key = "{{data.user}}"
item = {{ id = "{{id}}", text = "{{data.text}}" }}
[[projection.output]]
path = "/users/{{key}}/posts.json"
format = "json"
[[projection]]
name = "follows"
kind = "edges"
where = {{ type = "follow" }}
key = "{{data.user}}"
to = "{{data.whom}}"
item = {{ id = "{{data.whom}}" }}
[[projection.output]]
path = "/users/{{key}}/follows.json"
format = "json"
[[projection]]
name = "home"
kind = "home"
feed = "posts"
edges = "follows"
fanout = {{ max = {max} }}
[[projection.output]]
path = "/users/{{key}}/home.json"
format = "json"
[[rule]]
name = "feeds"
match = "/users/**"
origin = "shards"
ttl = "1h"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millpond", default=str(ROOT / "target/release/millpond"))
    parser.add_argument("--followers", type=int, default=20_000)
    parser.add_argument("--posts", type=int, default=100)
    parser.add_argument("--read", type=int, default=2_000)
    parser.add_argument("--shards", type=int, default=2)
    arguments = parser.parse_args()
    for name, most in [("told", 1_000_000), ("merged", max(1, arguments.followers // 2))]:
        with tempfile.TemporaryDirectory(prefix="millpond-") as folder:
            run(name, most, Path(folder), arguments)


def run(name, most, folder, arguments):
    config, errors = folder / "millpond.toml", folder / "errors"
    config.write_text(CONFIG.format(folder=folder, shards=arguments.shards, max=most))
    with errors.open("w") as told:
        process = subprocess.Popen(
            [arguments.millpond, "run", "--config", str(config)], stdout=subprocess.PIPE, stderr=told, text=True)
    try:
        addresses = ready(process, errors)
        measure(name, process, addresses, folder, arguments)
    finally:
        process.terminate()
        process.wait()


def measure(name, process, addresses, folder, arguments):
    ingest = connect(addresses["ingest"])
    follows = [event(number, "follow", {"user": f"u{number}", "whom": "great"}) for number in range(arguments.followers)]
    for first in range(0, len(follows), 1_000):
        post(ingest, follows[first:first + 1_000])
    settle(addresses)
    before, began = used(process), time.monotonic()
    for number in range(arguments.posts):
        text = {"user": "great", "text": f"post {number} " + "x" * 150}
        post(ingest, [event(arguments.followers + number, "post", text)])
    settle(addresses)
    took, cost = time.monotonic() - began, used(process) - before
    size = sum(file.stat().st_size for file in (folder / "shards").iterdir())
    proxy = connect(addresses["proxy"])
    before = used(process)
    for number in range(arguments.read):
        proxy.request("GET", f"/users/u{number}/home.json")
        answer = proxy.getresponse()
        items = json.loads(answer.read())["items"]
        if answer.status != 200 or len(items) != min(50, arguments.posts):
            raise SystemExit(f"{answer.status}: {len(items)} items of u{number}")
    read = used(process) - before
    print(f"{name}: {arguments.posts} posts to {arguments.followers} followers: {cost * 1e3 / arguments.posts:.2f} ms of CPU each, "
          f"committed after {took:.1f} s; shards' files {size >> 20} MiB; "
          f"{read * 1e6 / arguments.read:.0f} us of CPU for a home feed that is not cached", flush=True)


def event(number, kind, data):
    return json.dumps({"id": str(number), "type": kind, "time": 1_700_000_000 + number, "data": data})


def post(connection, events):
    connection.request("POST", "/events/social", "\n".join(events), {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    if answer.status != 202 or told["accepted"] != len(events):
        raise SystemExit(f"{answer.status}: {told}")


def settle(addresses):
    """Waits until nothing waits anywhere, twice in a row: what is told comes by once more."""
    quiet = 0
    while quiet < 2:
        quiet = quiet + 1 if waiting(state(addresses["admin"])) == 0 else 0
        time.sleep(0.02)


def used(process):
    return sum(cpu(process.pid).values())


def connect(address):
    host, port = address.split(":")
    return http.client.HTTPConnection(host, int(port))


if __name__ == "__main__":
    main()
