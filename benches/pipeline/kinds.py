#!/usr/bin/env python3
"""Every kind of projection at once, by real events: from the first POST until all documents are committed.

    make release && benches/pipeline/kinds.py FOLDER/data/wikiticker-2015-09-12-sampled.json.gz

The events of the file, one JSON object a line, go through the projections of config/pipeline.toml (feeds, latest, a
counter, a group) in one process, posted in batches over kept connections, before any document is read. For each run it
prints how long that took until everything was accepted, and until it was committed, the CPU time of each thread, and
how long it then takes to render a JSON and an Atom output of a thousand users, one after the other.
"""

import argparse
import gzip
import http.client
import json
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from end_to_end import ROLES, ROOT, cpu, ready, state, waiting

RENDERED = 1_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="events, one a line, in gzip")
    parser.add_argument("--millpond", default=str(ROOT / "target/release/millpond"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1_000, help="events in one request")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--queues", type=int, default=2, help="event queues")
    parser.add_argument("--flush", default="100ms")
    arguments = parser.parse_args()
    lines = gzip.open(arguments.file).read().splitlines()
    users = sorted({json.loads(line)["user"] for line in lines})[:RENDERED]
    bodies = [b"\n".join(lines[first:first + arguments.batch]) for first in range(0, len(lines), arguments.batch)]
    for number in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="millpond-") as folder:
            print(f"== run {number + 1} of {arguments.runs}: {len(lines)} events in batches of {arguments.batch}", flush=True)
            run(Path(folder), bodies, users, arguments)


def run(folder, bodies, users, arguments):
    config = folder / "millpond.toml"
    config.write_text(f'include = ["{ROOT}/config/pipeline.toml"]\n' + ROLES.format(
        folder=folder, queues=arguments.queues, shards=arguments.shards, flush=arguments.flush, flush_bytes="32MiB",
        memory="512MiB"))
    errors = folder / "errors"
    with errors.open("w") as told:
        process = subprocess.Popen(
            [arguments.millpond, "run", "--config", str(config)], stdout=subprocess.PIPE, stderr=told, text=True)
    try:
        addresses = ready(process, errors)
        measure(process, addresses, bodies, users, arguments)
    finally:
        process.terminate()
        process.wait()


def measure(process, addresses, bodies, users, arguments):
    before = cpu(process.pid)
    began = time.monotonic()
    senders = [
        threading.Thread(target=send, args=(addresses["ingest"], bodies[number::arguments.connections]))
        for number in range(arguments.connections)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    accepted = time.monotonic() - began
    while waiting(state(addresses["admin"])) > 0:
        time.sleep(0.005)
    committed = time.monotonic() - began
    used = {thread: seconds - before.get(thread, 0) for thread, seconds in cpu(process.pid).items()}
    print(f"accepted after {accepted:.2f} s, committed after {committed:.2f} s")
    print("CPU seconds: " + ", ".join(f"{thread} {seconds:.2f}" for thread, seconds in sorted(used.items()) if seconds >= 0.01))
    connection = connect(addresses["proxy"])
    for output in ["feed.json", "feed.xml"]:
        began = time.monotonic()
        for user in users:
            connection.request("GET", f"/users/{urllib.parse.quote(user, safe='')}/{output}")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"{answer.status} for {output} of {user}")
        print(f"{output} of {len(users)} users: {(time.monotonic() - began) * 1e3 / len(users):.2f} ms each", flush=True)


def send(address, bodies):
    connection = connect(address)
    for body in bodies:
        connection.request("POST", "/events/wiki", body, {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 202:
            raise SystemExit(f"{answer.status}: {told[:300]}")


def connect(address):
    host, port = address.split(":")
    return http.client.HTTPConnection(host, int(port))


if __name__ == "__main__":
    main()
