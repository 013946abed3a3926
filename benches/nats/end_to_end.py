#!/usr/bin/env python3
"""The pipeline on NATS, end to end: events over HTTP, until the shards have committed their documents.

    cargo build --release && benches/nats/end_to_end.py

Starts a NATS server (tools/nats-server) with `sync_interval: always` and the processes of config/nats in a temporary
folder, sends batches over kept connections, and prints events per second until accepted and until committed, the CPU
seconds of each process, and the disk's fdatasync beside them. Everything shares this machine's cores.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millpond", default=str(ROOT / "target/release/millpond"))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=100, help="events in one request")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--sync", default="always", help="sync_interval of the server")
    arguments = parser.parse_args()
    arguments.millpond = str(Path(arguments.millpond).resolve())
    probe = fdatasync_ms()
    with tempfile.TemporaryDirectory(prefix="millpond-nats-") as folder:
        processes = {}
        try:
            start(Path(folder), arguments, processes)
            run(arguments, processes)
        finally:
            for process in processes.values():
                process.kill()
            for process in processes.values():
                process.wait()
    print(f"fdatasync before: p50 {probe[0]:.2f} ms, p99 {probe[1]:.2f} ms; after: p50 {fdatasync_ms()[0]:.2f} ms")


def start(folder, arguments, processes):
    config = folder / "config"
    subprocess.run(["cp", "-r", str(ROOT / "config"), str(config)], check=True)
    server = config / "nats/nats-server.conf"
    server.write_text(server.read_text().replace("sync_interval: always", f"sync_interval: {arguments.sync}"))
    program = subprocess.run([str(ROOT / "tools/nats-server")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    processes["nats-server"] = subprocess.Popen(
        [program, "--config", str(server)], cwd=folder, stderr=subprocess.PIPE, text=True)
    wait_for(processes["nats-server"].stderr, "Server is ready")
    for name in ["ingest", "dispatcher", "shard-a", "shard-b"]:
        processes[name] = subprocess.Popen(
            [arguments.millpond, "run", "--config", f"config/nats/{name}.toml"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        wait_for(processes[name].stdout, "admin")


def wait_for(stream, words):
    for line in stream:
        if words in line:
            threading.Thread(target=stream.read, daemon=True).start()
            return
    sys.exit(f"a process ended before it said {words!r}")


def run(arguments, processes):
    bodies = [
        "\n".join(event(n, arguments.users) for n in range(first, min(first + arguments.batch, arguments.events))).encode()
        for first in range(0, arguments.events, arguments.batch)
    ]
    size = sum(map(len, bodies)) / arguments.events
    before = cpu(processes)
    began = time.monotonic()
    senders = [
        threading.Thread(target=send, args=(bodies[number::arguments.connections],))
        for number in range(arguments.connections)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    accepted = time.monotonic() - began
    while waiting() > 0:
        time.sleep(0.05)
    committed = time.monotonic() - began
    print(f"{arguments.events} events of {size:.0f} bytes, batches of {arguments.batch}, {arguments.connections} connections, "
          f"sync {arguments.sync}, R1")
    print(f"accepted  {arguments.events / accepted:10.0f} events/s ({accepted:.1f} s)")
    print(f"committed {arguments.events / committed:10.0f} events/s ({committed:.1f} s)")
    used = {name: after - before[name] for name, after in cpu(processes).items()}
    print("CPU seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items()))


def event(n, users):
    return json.dumps({
        "time": 1_700_000_000_000 + n, "user": f"user {n * 7919 % users}", "page": f"page {n % 1000}", "channel": f"#{n % 50}",
        "comment": f"a comment that is as long as many are, number {n}", "isRobot": False, "delta": n % 97,
    })


def send(bodies):
    connection = http.client.HTTPConnection("127.0.0.1", 7002)
    for body in bodies:
        while True:
            connection.request("POST", "/events/wiki", body)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == 202:
                break
            if answer.status != 503:
                sys.exit(f"{answer.status}: {told[:300]}")
            time.sleep(0.02)


def waiting():
    """Events and frames that are not committed yet, whoever is asked."""
    names = ["millpond_queue_depth", "millpond_shard_queue_depth", "millpond_shard_lag_events"]
    total = 0.0
    for port in [9183, 9184, 9185]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        for name in names:
            total += sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))
    return total


def cpu(processes):
    seconds = {}
    for name, process in processes.items():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        seconds[name] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def fdatasync_ms(count=200):
    times = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(count):
            file.write(b"x" * 4096)
            file.flush()
            began = time.monotonic()
            os.fdatasync(file.fileno())
            times.append((time.monotonic() - began) * 1000)
    times.sort()
    return times[count // 2], times[count * 99 // 100]


if __name__ == "__main__":
    main()
