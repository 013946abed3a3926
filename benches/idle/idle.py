#!/usr/bin/env python3
"""What an idle keep-alive client costs: opens connections, sends one request on each, and reads the process's memory.

    idle.py PID HOST:PORT PATH [CONNECTIONS]

Needs a limit of open files above CONNECTIONS, here and in the process (`ulimit -n`), and the right to read
/proc/PID/smaps_rollup. Prints the proportional set size before and with the connections open, in bytes for each."""
import resource
import socket
import sys


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))


def main():
    pid, address, path = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000
    host, port = address.rsplit(":", 1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: idle.py\r\nAccept: */*\r\n\r\n".encode()

    def ask(connection):
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        head, body = answer.split(b"\r\n\r\n", 1)
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        while len(body) < length:
            body += connection.recv(65536)

    warm = [socket.create_connection((host, int(port))) for _ in range(200)]
    for connection in warm:
        ask(connection)
    before = pss(pid)
    connections = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)))
        connections.append(connection)
        ask(connection)
    after = pss(pid)
    print(f"{count} connections: {before} -> {after} bytes of PSS, {(after - before) / count:.0f} for each")


if __name__ == "__main__":
    main()
