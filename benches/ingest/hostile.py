#!/usr/bin/env python3
"""What honest producers lose to attackers on the same sockets.

    benches/ingest/hostile.py [SECONDS] [RUNS]

Honest: `millpond load`, signed single events over 64 connections. They send alone; beside 64 connections that send forged
signatures as fast as they are refused; and beside 1,000 connections that promise 8 MiB and send nothing. Prints medians of
what was accepted and what share of it is left. As many forgers as producers may take half of the machine (goal: a share of
0.5 at least); those that only wait may take nothing (goal: 0.95). Needs a release build: make release, or MILLPOND=BINARY.
"""

import base64
import os
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
RUNS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
BINARY = os.path.abspath(os.environ.get("MILLPOND", "target/release/millpond"))
CONNECTIONS = 64
SLOW = 1_000
CONFIG = """
log = { level = "error" }
ingest = { listen = "127.0.0.1:0" }
queue = { dir = "queue", event_queues = 2, depth_max_events = 100000000, depth_max_bytes = "64GiB" }

[[source]]
name = "load"
path = "/events/load"
auth = { kind = "standard-webhooks", secrets = ["env:HONEST"] }
"""


def secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


ENVIRONMENT = dict(os.environ, HONEST=secret(), FORGED=secret())


def load(url, name):
    """The generator, signing with one of the secrets."""
    command = [BINARY, "load", "--url", url, "--secret", f"env:{name}", "--for", f"{SECONDS}s"]
    command += ["--connections", str(CONNECTIONS)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def accepted(producer):
    """Events a second."""
    told, _ = producer.communicate()
    found = re.search(r"^accepted\s+([0-9.]+)", told, re.MULTILINE)
    if not found:
        sys.exit(f"the generator told nothing of accepted events:\n{told}")
    return float(found[1])


def alone(url):
    return accepted(load(url, "HONEST"))


def beside_forgers(url):
    forger, producer = load(url, "FORGED"), load(url, "HONEST")
    rate = accepted(producer)
    forger.communicate()
    return rate


def beside_slow(url):
    host, port = re.match(r"http://([^:]+):(\d+)/", url).groups()
    head = f"POST /events/load HTTP/1.1\r\nHost: {host}\r\nwebhook-id: a\r\nwebhook-timestamp: %d\r\n"
    head += f"webhook-signature: v1,{base64.b64encode(bytes(32)).decode()}\r\nContent-Length: {8 << 20}\r\n\r\n["
    held = []
    for _ in range(SLOW):
        connection = socket.create_connection((host, int(port)))
        connection.sendall((head % time.time()).encode())
        held.append(connection)
    rate = alone(url)
    for connection in held:
        connection.close()
    return rate


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        with open(os.path.join(folder, "millpond.toml"), "w", encoding="ascii") as file:
            file.write(CONFIG)
        command = [BINARY, "run", "--config", "millpond.toml"]
        server = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            url = next(line for line in server.stdout if line.endswith(" ingest\n")).split()[1] + "/events/load"
            rates = {}
            for _ in range(RUNS):
                for case in (alone, beside_forgers, beside_slow):
                    rates.setdefault(case, []).append(case(url))
            whole = statistics.median(rates[alone])
            for case, all_runs in rates.items():
                rate, runs = statistics.median(all_runs), " ".join(f"{run:.0f}" for run in all_runs)
                words = case.__name__.replace("_", " ")
                print(f"{words:16} {rate:8.0f} events/s accepted, a share of {rate / whole:.2f}   ({runs})")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
