#!/usr/bin/env python3
"""The pipeline end to end: signed events over HTTP, until the shards have committed their documents.

    make release && benches/pipeline/end_to_end.py [--seconds 60] [--only single]

Every role in one process, `millpond load` as the producer, all on this machine's cores. For each load it prints how many
events a second were accepted and committed (in all, what is left when the producer stops included; and while it sends, but for the
first sixth of the time), the largest backlog that was seen (queues, and events that a shard has not committed), how long the
pipeline needed for the rest once the producer had stopped, the CPU time of each thread, and the disk's fdatasync beside it.
"""

import argparse
import base64
import http.client
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
# Every role in one process.
ROLES = """
[log]
level = "warn"

[ingest]
listen = "127.0.0.1:0"

[queue]
dir = "{folder}/queue"
event_queues = {queues}

[dispatcher]

[shards]
dir = "{folder}/shards"
flush_every = "{flush}"
flush_bytes = "{flush_bytes}"
memory = "{memory}"

[shard_map]
count = {shards}
version = 1

[proxy]
listen = ["127.0.0.1:0"]

[admin]
listen = "127.0.0.1:0"

[[rule]]
name = "feeds"
match = "/**"
origin = "shards"
key = {{ query = [] }}
ttl = "1h"
"""
DECLARED = """
[[source]]
name = "load"
path = "/events/load"
auth = {{ kind = "standard-webhooks", secrets = ["env:FIGURES_SECRET"] }}

[[projection]]
name = "user-events"
kind = "feed"
key = "{{data.user}}"
keep = 50
title = "Events of {{key}}"
item = {{ id = "{{id}}", title = "{{data.page}}", content_text = "{{data.text}}", date_published = "{{time}}" }}

  [[projection.output]]
  path = "/users/{{key}}/feed.json"
  format = "jsonfeed"
"""
LOADS = {
    "single": ["--connections", "256"],
    "batch": ["--connections", "64", "--batch", "100"],
    "watch": ["--connections", "64", "--rate", "1000"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millpond", default=str(ROOT / "target/release/millpond"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=LOADS, action="append", help="which loads; all of them without it")
    parser.add_argument("--keys", type=int, default=100_000, help="different documents")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--queues", type=int, default=2, help="event queues")
    parser.add_argument("--memory", default="4GiB", help="of the shards, for documents")
    parser.add_argument("--flush", default="5s", help="how long changes wait in memory")
    parser.add_argument("--flush-bytes", default="512MiB", help="how much of them")
    parser.add_argument("--rate", type=int, help="requests in a second instead of as many as are taken")
    parser.add_argument("--folder", help="where the data is written, instead of where temporary files are")
    arguments = parser.parse_args()
    os.environ["FIGURES_SECRET"] = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    for name in arguments.only or LOADS:
        for number in range(arguments.runs):
            print(f"== {name}, run {number + 1} of {arguments.runs}", flush=True)
            with tempfile.TemporaryDirectory(prefix="millpond-", dir=arguments.folder) as folder:
                run(Path(folder), name, arguments)


def run(folder, name, arguments):
    config = folder / "millpond.toml"
    config.write_text((ROLES + DECLARED).format(
        folder=folder, queues=arguments.queues, shards=arguments.shards, flush=arguments.flush,
        flush_bytes=arguments.flush_bytes, memory=arguments.memory))
    errors = folder / "errors"
    with errors.open("w") as told:
        process = subprocess.Popen(
            [arguments.millpond, "run", "--config", str(config)], stdout=subprocess.PIPE, stderr=told, text=True)
    try:
        addresses = ready(process, errors)
        measure(process, addresses, name, folder, arguments)
    finally:
        process.terminate()
        process.wait()
    told = errors.read_text()
    if told:
        print(f"it said: {told[:2000]}")


def ready(process, errors, roles=frozenset({"ingest", "proxy", "admin"})):
    """Waits until a process has said where these roles are; the addresses of all that it has named by then."""
    addresses = {}
    for line in process.stdout:
        found = re.match(r"ready http://(\S+) (\w+)", line)
        if found:
            addresses[found[2]] = found[1]
        if roles <= addresses.keys():
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return addresses
    sys.exit(f"the program ended before it was ready: {errors.read_text()}")


def measure(process, addresses, name, folder, arguments):
    load = [arguments.millpond, "load", "--url", f"http://{addresses['ingest']}/events/load", "--secret",
            "env:FIGURES_SECRET", "--for", f"{arguments.seconds}s", "--keys", str(arguments.keys), "--probe", str(folder)]
    load += LOADS[name]
    if name == "watch":
        load += ["--watch", f"http://{addresses['proxy']}/users/{{key}}/feed.json"]
    elif arguments.rate:
        load += ["--rate", str(arguments.rate)]
    before = cpu(process.pid)
    producer = subprocess.Popen(load, stdout=subprocess.PIPE, text=True)
    told = []
    reader = threading.Thread(target=lambda: told.extend(producer.stdout))
    reader.start()
    most, began, seen = {}, time.monotonic(), []
    while producer.poll() is None:
        now = state(addresses["admin"])
        seen.append((time.monotonic() - began, now["applied"] - now["uncommitted"]))
        most = {metric: max(most.get(metric, 0), now[metric]) for metric in ["depth", "lag", "uncommitted"]}
        try:
            producer.wait(1)
        except subprocess.TimeoutExpired:
            pass
    reader.join()
    ended = time.monotonic()
    left = state(addresses["admin"])
    rest = waiting(left)
    while waiting(now := state(addresses["admin"])) > 0:
        time.sleep(0.02)
    drained = time.monotonic() - ended
    print("".join(told), end="")
    accepted = int(re.search(r"accepted (\d+),", "".join(told))[1])
    print(f"end to end {accepted / (arguments.seconds + drained):.0f} events/s committed; "
          f"{rest:.0f} left when the producer stopped, {drained:.2f} s for them")
    steady = [sample for sample in seen if arguments.seconds / 6 <= sample[0] <= arguments.seconds]
    if len(steady) > 1:
        (first, before_it), (last, by_then) = steady[0], steady[-1]
        print(f"steady     {(by_then - before_it) / (last - first):.0f} events/s committed from second {first:.0f} to {last:.0f}")
    print(f"backlog    at most {most['depth']:.0f} events in event queues, {most['lag']:.0f} in shard queues and not applied, "
          f"{most['uncommitted']:.0f} applied and not committed")
    for what in ["apply", "hold", "flush"]:
        print(f"{what:<10} {now[what]}")
    used = {thread: seconds - before.get(thread, 0) for thread, seconds in cpu(process.pid).items()}
    every = sum(used.values())
    parts = ", ".join(f"{thread} {seconds:.1f}" for thread, seconds in sorted(used.items()) if seconds >= 0.05)
    print(f"CPU        {every / max(accepted, 1) * 1e6:.1f} µs an event; seconds: {parts}", flush=True)


def waiting(state):
    return state["depth"] + state["lag"] + state["uncommitted"]


def state(admin):
    """What waits, in events, and how long batches, holds and commits of shards took."""
    host, port = admin.split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()

    def total(metric, labels=r"(?:{[^}]*})?"):
        return sum(float(value) for value in re.findall(rf"^{metric}{labels} (\S+)$", text, re.M))

    def durations(metric):
        bounds = sorted({float(bound) for bound in re.findall(rf'^{metric}_bucket{{[^}}]*le="([\d.e+-]+)"', text, re.M)})
        below, told = 0, []
        for bound in bounds:
            upto = total(metric + "_bucket", rf'{{[^}}]*le="{bound:g}"[^}}]*}}')
            if upto > below:
                told.append(f"{upto - below:.0f} up to {bound * 1000:g} ms")
            below = upto
        every = total(metric + "_count")
        if every > below:
            told.append(f"{every - below:.0f} longer")
        return ", ".join(told) or "none"

    return {
        "depth": total("millpond_queue_depth"),
        "lag": total("millpond_shard_lag_events"),
        "uncommitted": total("millpond_shard_uncommitted_events"),
        "applied": total("millpond_shard_applied_events_total"),
        "apply": durations("millpond_shard_apply_seconds"),
        "hold": durations("millpond_shard_hold_seconds"),
        "flush": durations("millpond_shard_flush_seconds"),
    }


def cpu(pid):
    """CPU seconds by name of thread."""
    seconds = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, fields = (thread / "stat").read_text().rsplit(")", 1)
        except FileNotFoundError:
            continue
        name = re.sub(r"[-\d]+$", "", name.split("(", 1)[1])
        fields = fields.split()
        seconds[name] = seconds.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


if __name__ == "__main__":
    main()
