#!/usr/bin/env python3
"""Workloads beside those of hit.sh; the same environment (see README.md), to be started through more.sh.

    rate    latency at a fixed rate: half of what the best peer serves at most (h2load --h1 --rps, from its log)
    flood   unique URLs for FLOOD seconds (60): resident memory of EXTRA against its budget, MEMORY bytes
    scale   hits on 1,000 to 1,000,000 objects under one zipf law, EXTRA beside the do-nothing server
"""
import os
import re
import statistics
import subprocess
import sys
import time

import hit


def rate():
    """p50, p99 and p99.9 of every peer at one rate."""
    peers = hit.E("PEERS", "nginx haproxy varnish ats").split()
    if hit.E("RESTART", "1") == "1":
        hit.sh("up.sh", "origin", *peers)
    workload = hit.WL["hot2k"]
    everyone = peers + list(hit.EX)
    maxima = {}
    for peer in everyone:
        for _ in range(3):
            subprocess.run(["curl", "-s", "-o", "/dev/null", hit.url(peer, "hot2k") + workload["path"]])
        maxima[peer] = hit.load(peer, hit.url(peer, "hot2k"), workload)["rps"]
    best = max(maxima[peer] for peer in peers)
    clients = int(hit.E("CONNS", "64"))
    each = max(1, int(float(hit.E("RATE", str(best / 2))) / clients))
    print(f"best peer at most {best:.0f}/s; asked: {each * clients}/s over {clients} connections, {hit.ROUNDS} x {hit.DUR} s")
    found = {peer: [] for peer in everyone}
    for _ in range(hit.ROUNDS):
        for peer in everyone:
            log = f"{hit.RUN}/rate.log"
            if os.path.exists(log):
                os.remove(log)
            command = ["taskset", "-c", hit.GEN, "h2load", "--h1", "-t1", f"-c{clients}", "-m1", f"--rps={each}"]
            command += ["-D", str(hit.DUR), f"--log-file={log}", hit.url(peer, "hot2k") + workload["path"]]
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            rows = [line.split("\t") for line in open(log)]
            # Start in microseconds, status, duration in microseconds. The first second warms up.
            first = min(int(row[0]) for row in rows)
            took = sorted(int(row[2]) for row in rows if int(row[0]) > first + 1_000_000)
            bad = sum(row[1] != "200" for row in rows)
            found[peer].append([took[int(len(took) * part)] for part in (0.5, 0.99, 0.999)] + [len(took), bad])
    print("| peer | p50 us | p99 us | p99 min-max | p99.9 us | requests | bad |\n|" + "---|" * 7)
    for peer, rounds in sorted(found.items(), key=lambda item: statistics.median(r[1] for r in item[1])):
        p50, p99, p999, count, bad = (statistics.median(column) for column in zip(*rounds))
        spread = f"{min(r[1] for r in rounds)}-{max(r[1] for r in rounds)}"
        print(f"| {peer} | {p50:.0f} | {p99:.0f} | {spread} | {p999:.0f} | {count:.0f} | {bad:.0f} |", flush=True)


def resident(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def flood():
    """Resident memory while no URL is asked for twice."""
    hit.sh("up.sh", "origin")
    (name, base), pid = next(iter(hit.EX.items())), next(iter(hit.EXPID.values()))
    seconds, budget = int(hit.E("FLOOD", "60")), int(hit.E("MEMORY", str(512 << 20)))
    idle = resident(pid)
    limit = budget * 1.05 + idle
    command = ["taskset", "-c", hit.GEN, "wrk", "-t1", "-c64", f"-d{seconds}s", "-s", f"{hit.HERE}/lua/unique.lua", base]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most = 0
    while load.poll() is None:
        most = max(most, resident(pid))
        time.sleep(0.1)
    requests = re.search(r"(\d+) requests in", load.stdout.read())[1]
    print(f"{name}: {requests} URLs in {seconds} s; resident: idle {idle >> 20} MiB, at most {most / 2**20:.1f} MiB; ", end="")
    print(f"allowed (budget + 5 % + idle) {limit / 2**20:.1f} MiB: {'within' if most <= limit else 'ABOVE'}")


def scale():
    """CPU per hit by number of objects, beside the do-nothing server on the same list."""
    hit.sh("up.sh", "origin", "ceiling")
    name = next(iter(hit.EX))
    print(f"| objects | {name} us | ceiling us | net us | net / net at the first |\n|" + "---|" * 5)
    first = None
    for count in (int(text) for text in hit.E("OBJECTS", "1000 10000 100000 1000000").split()):
        hit.NIDS = count
        for stale in ("zipf.txt", "uris.txt"):
            if os.path.exists(f"{hit.RUN}/{stale}"):
                os.remove(f"{hit.RUN}/{stale}")
        workload = {**hit.WL["zipf"], "args": [hit.zipf_file()]}
        hit.fill(hit.url(name, "zipf"), n=count)
        rounds = {peer: [] for peer in (name, "ceiling")}
        for _ in range(hit.ROUNDS):
            for peer, seen in rounds.items():
                seen.append(hit.load(peer, hit.url(peer, "zipf"), workload))
        ours, floor = (statistics.median(run["cpu_us"] for run in rounds[peer]) for peer in (name, "ceiling"))
        fetched = sum(run["origin"] for run in rounds[name])
        first = first or ours - floor
        print(f"| {count} | {ours:.2f} | {floor:.2f} | {ours - floor:.2f} | {(ours - floor) / first:.2f} |", end="")
        print(f" {fetched} misses" if fetched > 0 else "", flush=True)
    for stale in ("zipf.txt", "uris.txt"):
        os.remove(f"{hit.RUN}/{stale}")


if __name__ == "__main__":
    held = hit.lock()
    {"rate": rate, "flood": flood, "scale": scale}[sys.argv[1]]()
