"""Runs deploy/haproxy.cfg in front of two servers for each half, of which one breaks off instead of answering, and
checks what goes where and in which HTTP, what is repeated, and who gets nothing any more: haproxy_check.py DIRECTORY"""

import http.client
import http.server
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

work = pathlib.Path(sys.argv[1])
work.mkdir(parents=True, exist_ok=True)
deploy = pathlib.Path(__file__).parents[2] / "deploy"


class Server:
    """Answers with its name, or breaks off, and remembers what it was asked."""

    def __init__(self, name: str, breaks: bool) -> None:
        self.name, self.breaks, self.ready = name, breaks, True
        self.asked, self.versions = [], set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path == "/readyz":
                    return self.answer(200 if server.ready else 503)
                server.asked.append(self.path)
                server.versions.add(self.request_version)
                if server.breaks:
                    self.close_connection = True
                    return None
                return self.answer(200)

            do_POST = do_PATCH = do_GET

            def answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(server.name)))
                self.end_headers()
                self.wfile.write(server.name.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Health checks hang up as soon as they have the status.
        self.http.handle_error = lambda *_: None
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port = free_port()
servers = {}
text = (deploy / "haproxy.cfg").read_text()
for name in re.findall(r"^\s+server (\S+)", text, re.M):
    number = name.rsplit("-", 1)[1]
    if number == "3":
        text = re.sub(rf"^\s+server {name} .*\n", "", text, flags=re.M)
        continue
    servers[name] = Server(name, breaks=number == "1")
    text = re.sub(rf"{name}:\d+", f"127.0.0.1:{servers[name].http.server_port}", text)
text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace("balance leastconn", "balance roundrobin")
text = re.sub(r"maxconn \d+", "maxconn 200", text)
(work / "haproxy.cfg").write_text(text)


def ask(method: str, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    body = b"{}" if method != "GET" else None
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.read().decode()


def version_in_front() -> str:
    """What a client that speaks HTTP/2 is answered in."""
    write = ["--http2-prior-knowledge", "--output", "/dev/null", "--write-out", "%{http_version}"]
    url = f"http://127.0.0.1:{port}/openapi.json"
    return subprocess.run(["curl", "--silent", *write, url], capture_output=True, text=True, check=True).stdout


def expect(what: str, is_so: bool) -> None:
    if not is_so:
        sys.exit(f"not so: {what}")


def check() -> None:
    # Six times each: with two servers in turn, each is met.
    for method, path in [
        ("GET", "/api/v1/users?email=x"),
        ("POST", "/api/v1/users/query"),
        ("POST", "/api/v1/users/batch-get"),
        ("GET", "/openapi.json"),
    ]:
        answers = {ask(method, path) for _ in range(6)}
        expect(f"{method} {path} goes to query-api, and again where one breaks off", answers == {(200, "query-api-2")})
    answers = {ask("POST", "/api/v1/users", Idempotency_Key=f"key-{n}") for n in range(6)}
    expect("a command with a key goes to command-api, and again", answers == {(200, "command-api-2")})
    for server in servers.values():
        server.asked.clear()
    answers = [ask("PATCH", "/api/v1/users/1")[0] for _ in range(6)]
    delivered = sum(len(server.asked) for server in servers.values())
    expect("a command without a key is never sent twice", answers.count(502) == 3 and delivered == 6)
    expect("HTTP/2 is spoken to clients", version_in_front() == "2")
    versions = set().union(*(server.versions for server in servers.values()))
    expect("HTTP/1.1 is spoken to the members", versions == {"HTTP/1.1"})
    for path in ["/metrics", "/readyz", "/health", "/health/detailed"]:
        expect(f"{path} stays inside", ask("GET", path)[0] == 404)
    expect("/livez answers", ask("GET", "/livez")[0] == 200)

    servers["command-api-1"].ready = False
    time.sleep(3)
    servers["command-api-1"].asked.clear()
    answers = {ask("POST", "/api/v1/users") for _ in range(6)}
    expect("who is not ready is asked nothing", answers == {(200, "command-api-2")})
    servers["command-api-2"].ready = False
    time.sleep(3)
    expect("without anybody ready it is not alive", ask("GET", "/livez")[0] == 503)


with (work / "log").open("w") as log:
    balancer = subprocess.Popen(["haproxy", "-db", "-f", work / "haproxy.cfg"], stdout=log, stderr=log)
    try:
        time.sleep(2)
        check()
    finally:
        balancer.terminate()
        balancer.wait()
