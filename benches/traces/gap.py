#!/usr/bin/env python3
"""How much of the gap between LRU and the offline optimum (Belady-Size) the store's policies close.

    benches/traces/gap.py FOLDER [MILLPOND]

FOLDER holds nasa.csv.gz, web07.csv.gz and oltp.csv.gz; MILLPOND is the command (target/release/millpond unless
given). Plays each trace at 5 % and 10 % of its footprint, with the sizes of the trace and with equal ones, charging
sizes alone. Prints Markdown; exits 1 where a goal is missed.
"""
import csv, gzip, json, os, statistics, subprocess, sys, tempfile

# Miss ratios of Belady-Size in percent, objects and bytes: simulated once, without a limit on the size of an object.
BELADY = {
    ("nasa", 5): (8.7, 50.7), ("nasa", 10): (6.9, 40.5),
    ("web07", 5): (32.5, 33.5), ("web07", 10): (29.1, 29.1),
    ("oltp", 5): (24.4, 30.9), ("oltp", 10): (21.7, 25.6),
}
TRACES = ["nasa", "web07", "oltp"]
EQUAL_SIZE = 2048


def rows(path):
    with gzip.open(path, "rt") as lines:
        yield from csv.DictReader(lines)


def footprint(path):
    return sum({row["key_hash"]: int(row["size"]) for row in rows(path)}.values())


def with_equal_sizes(path, folder):
    equal = os.path.join(folder, "equal-" + os.path.basename(path))
    with gzip.open(equal, "wt", compresslevel=1) as out:
        out.write("time,key_hash,size\n")
        out.writelines(f"{row['time']},{row['key_hash']},{EQUAL_SIZE}\n" for row in rows(path))
    return equal


def play(command, path, capacity, policy, seed):
    arguments = ["--trace", path, "--capacity", str(capacity), "--policy", policy, "--overhead", "none", "--seed", str(seed)]
    told = json.loads(subprocess.run([command, "replay-trace", *arguments], check=True, capture_output=True).stdout)
    assert told["peak_bytes"] <= capacity, told
    return 100 - 100 * told["object_hit_ratio"], 100 - 100 * told["byte_hit_ratio"]


def main():
    folder, command = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "target/release/millpond"
    seeds = range(1, 1 + int(os.environ.get("SEEDS", "3")))
    closed, closed_bytes, missed = [], [], []
    print("Miss ratios in percent, object / byte; what share of the gap from `lru` to Belady-Size `gdsf` closes.\n")
    print("| trace | capacity | lru | gdsf | belady-size | objects closed | bytes closed |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        for trace in TRACES:
            path = os.path.join(folder, trace + ".csv.gz")
            equal, whole = with_equal_sizes(path, made), footprint(path)
            equal_whole = footprint(equal)
            for percent in (5, 10):
                lru = play(command, path, whole * percent // 100, "lru", 1)
                runs = [play(command, path, whole * percent // 100, "gdsf", seed) for seed in seeds]
                gdsf = [statistics.mean(ratios) for ratios in zip(*runs)]
                best = BELADY[trace, percent]
                share = [(l - g) / (l - b) * 100 for l, g, b in zip(lru, gdsf, best)]
                closed.append(share[0])
                closed_bytes.append(share[1])
                told = [f"{ratios[0]:.1f} / {ratios[1]:.1f}" for ratios in (lru, gdsf, best)]
                print(f"| {trace} | {percent} % | {' | '.join(told)} | {share[0]:.0f} % | {share[1]:.0f} % |")
                lru = play(command, equal, equal_whole * percent // 100, "lru", 1)[0]
                gdsf = statistics.mean(play(command, equal, equal_whole * percent // 100, "gdsf", seed)[0] for seed in seeds)
                print(f"| {trace}, equal sizes | {percent} % | {lru:.1f} | {gdsf:.1f} | | | |")
                if gdsf > lru:
                    missed.append(f"{trace} at {percent} % with equal sizes is behind lru")
    print(f"\nMean: {statistics.mean(closed):.1f} % of the objects' gap, {statistics.mean(closed_bytes):.1f} % of the bytes'.")
    print(f"Worst point: {min(closed):.1f} % of the objects' gap, {min(closed_bytes):.1f} % of the bytes'.")
    if statistics.mean(closed) < 45:
        missed.append("less than 45 % of the objects' gap is closed")
    if min(closed) < 0:
        missed.append("at some point it is behind lru")
    if statistics.mean(closed_bytes) < -10:
        missed.append("bytes are more than 10 % of their gap behind lru")
    for goal in missed:
        print(f"MISSED: {goal}")
    sys.exit(1 if missed else 0)


main()
