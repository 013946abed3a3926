#!/usr/bin/env python3
"""A shard that comes back: how soon it serves, and how soon it has caught up.

    make release && benches/pipeline/restart.py [--keys 100000] [--behind 1000000]

Queue, ingest and dispatcher run in one process, the shard in another. Feeds of 50 items are filled until the shard's file
holds about `--state` bytes; then the shard is killed (-9) and `--behind` more events are sent. Printed is how long after its start
the shard answers first (with what position behind), and when it has applied everything. Needs the events in the queue: a
second run starts anew. The disk's page cache is warm.
"""

import argparse
import http.client
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from end_to_end import ROOT, cpu, ready, state

COMMON = """
[log]
level = "warn"

[shard_map]
count = 1

  [shard_map.address]
  "{shard}" = [0]

[[projection]]
name = "user-events"
kind = "feed"
key = "{{data.user}}"
keep = 50
item = {{ id = "{{id}}", title = "{{data.page}}", content_text = "{{data.text}}", date_published = "{{time}}" }}

  [[projection.output]]
  path = "/users/{{key}}/feed.json"
  format = "jsonfeed"

[admin]
listen = "127.0.0.1:0"
"""
QUEUES = COMMON + """
[[source]]
name = "load"
path = "/events/load"
dedupe = "1s"

[ingest]
listen = "127.0.0.1:0"

[queue]
dir = "{folder}/queue"
listen = "{queue}"
event_queues = 2
depth_max_events = 100000000
depth_max_bytes = "64GiB"
shard_depth_max_bytes = "64GiB"

[dispatcher]
"""
SHARD = COMMON + """
[shards]
dir = "{folder}/shards"
listen = "{shard}"
queue = "{queue}"
memory = "4GiB"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millpond", default=str(ROOT / "target/release/millpond"))
    parser.add_argument("--state", type=int, default=1 << 30, help="bytes of documents in the shard's file")
    parser.add_argument("--keys", type=int, default=100_000, help="different documents")
    parser.add_argument("--behind", type=int, default=1_000_000, help="events that the shard has missed")
    parser.add_argument("--folder", help="where the data is written, instead of where temporary files are")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millpond-", dir=arguments.folder) as folder:
        run(Path(folder), arguments)


def run(folder, arguments):
    places = {"folder": folder, "shard": f"127.0.0.1:{free_port()}", "queue": f"127.0.0.1:{free_port()}"}
    for name, text in [("queues", QUEUES), ("shard", SHARD)]:
        (folder / f"{name}.toml").write_text(text.format(**places))
    running = {}
    try:
        running["queues"], queues = start(folder, "queues", arguments, {"ingest", "admin"})
        running["shard"], shard = start(folder, "shard", arguments, {"admin"})
        sent = 0
        while size(folder) < arguments.state:
            sent += load(queues, arguments, ["--for", "5s"])
            wait(shard)
        print(f"{sent} events in {arguments.keys} documents: {size(folder) / (1 << 20):.0f} MiB on disk", flush=True)
        running["shard"].kill()
        running["shard"].wait()
        missed = 0
        while missed < arguments.behind:
            missed += load(queues, arguments, ["--for", "1s", "--rate", str(min(2_000, (arguments.behind - missed) // 100 + 1))])
        while state(queues["admin"])["depth"] > 0:
            time.sleep(0.05)

        before = cpu(running["queues"].pid)
        began = time.monotonic()
        running["shard"] = launch(folder, "shard", arguments)
        told = serves(places["shard"])
        served = time.monotonic() - began
        shard = ready(running["shard"], folder / "shard.errors", {"admin"})
        while lag(shard) > 0:
            time.sleep(0.005)
        caught_up = time.monotonic() - began
        print(f"the shard missed {missed} events; {told}")
        print(f"it answered {served:.3f} s after its start, and had caught up after {caught_up:.2f} s "
              f"({missed / caught_up / 1e3:.0f} k events/s)")
        for name, before in [("queues", before), ("shard", {})]:
            used = {thread: seconds - before.get(thread, 0) for thread, seconds in cpu(running[name].pid).items()}
            parts = (f"{thread} {seconds:.2f}" for thread, seconds in sorted(used.items()) if seconds >= 0.05)
            print(f"CPU seconds of {name}: {', '.join(parts)}")
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def launch(folder, name, arguments):
    with (folder / f"{name}.errors").open("w") as errors:
        return subprocess.Popen(
            [arguments.millpond, "run", "--config", str(folder / f"{name}.toml")],
            stdout=subprocess.PIPE, stderr=errors, text=True)


def start(folder, name, arguments, roles):
    process = launch(folder, name, arguments)
    return process, ready(process, folder / f"{name}.errors", roles)


def load(addresses, arguments, options):
    """Sends events as fast as they are taken; how many were accepted."""
    command = [arguments.millpond, "load", "--url", f"http://{addresses['ingest']}/events/load", "--batch", "100",
               "--connections", "16", "--keys", str(arguments.keys), "--zipf", "0", *options]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(re.search(r"accepted (\d+),", told)[1])


def serves(address):
    """Asks for a document until there is an answer; which."""
    host, port = address.split(":")
    while True:
        try:
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", "/users/k0/feed.json")
            answer = connection.getresponse()
            body = answer.read()
            behind = answer.getheader("Millpond-Behind")
            return f"first answer: {answer.status}, {len(body)} bytes, Millpond-Behind: {behind}"
        except ConnectionRefusedError:
            time.sleep(0.001)


def wait(shard):
    while (now := state(shard["admin"]))["lag"] + now["uncommitted"] > 0:
        time.sleep(0.05)


def lag(shard):
    return state(shard["admin"])["lag"]


def size(folder):
    return sum(os.stat(file).st_blocks * 512 for file in (folder / "shards").glob("*.redb"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
