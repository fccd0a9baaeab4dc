"""Checks what a schema cannot: that compose.yaml fits the files, the keys and the load balancer beside it."""

import pathlib
import re
import sys
import tomllib

import yaml

root = pathlib.Path(__file__).parents[2]
deploy = root / "deploy"
compose = yaml.safe_load((deploy / "compose.yaml").read_text())
services = compose["services"]
problems: list[str] = []


def names(entries: list) -> list[str]:
    return [entry if isinstance(entry, str) else entry["source"] for entry in entries]


def keys(table: dict, path: str = "") -> list[str]:
    """database.url as ROLLCALL_DATABASE_URL"""
    found = []
    for name, value in table.items():
        found += keys(value, f"{path}{name}_") if isinstance(value, dict) else [f"ROLLCALL_{path}{name}".upper()]
    return found


# Everything that is named is there.
for name, service in services.items():
    for kind, default in (("secrets", {}), ("configs", {}), ("networks", {"default": None})):
        known = compose.get(kind, default)
        problems += [f"{name}: no {kind} {each}" for each in names(service.get(kind, [])) if each not in known]
    problems += [f"{name}: no service {each}" for each in service.get("depends_on", []) if each not in services]
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (deploy / source).exists():
                problems.append(f"{name}: no file {source}")
        elif source not in compose["volumes"]:
            problems.append(f"{name}: no volume {source}")
    published = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    problems += [f"{name}: {port} is published beyond loopback" for port in published]
    if not service.get("deploy", {}).get("resources", {}).get("limits") and service.get("restart") != "no":
        problems.append(f"{name}: no limits")
for kind in ("secrets", "configs"):
    for file in (entry["file"] for entry in compose[kind].values()):
        if not file.startswith(("./secrets/", "${")) and not (deploy / file).exists():
            problems.append(f"{kind}: no file {file}")
made = (deploy / "secrets.sh").read_text()
for entry in compose["secrets"].values():
    if f"keep {pathlib.Path(entry['file']).name}" not in made:
        problems.append(f"secrets.sh does not make {entry['file']}")

# Nobody is killed who still drains.
def seconds(span: str) -> int:
    """30s, 2min, 1m"""
    number, unit = re.fullmatch(r"(\d+)(s|m|min)", span).groups()
    return int(number) * (1 if unit == "s" else 60)


shutdown = tomllib.loads((root / "src/config/default.toml").read_text())["shutdown"]
waits = {
    name: service["stop_grace_period"]
    for name, service in services.items()
    if str(service["image"]).startswith("rollcall:") and name != "migrate"
}
for unit in ("rollcall.service", "rollcall@.service"):
    [waits[unit]] = re.findall(r"^TimeoutStopSec=(.*)$", (deploy / "systemd" / unit).read_text(), re.M)
for name, wait in waits.items():
    if seconds(wait) <= shutdown["notice_s"] + shutdown["drain_s"]:
        problems.append(f"{name}: is killed after {wait}, within shutdown.notice_s and shutdown.drain_s")

# Every variable is a key of the configuration.
known_keys = keys(tomllib.loads((root / "src/config/default.toml").read_text())) + ["DATABASE_URL", "NATS_URL"]
ours = {name: service for name, service in services.items() if str(service["image"]).startswith("rollcall:")}
for name, service in ours.items():
    problems += [f"{name}: no key {each}" for each in service.get("environment", {}) if each not in known_keys]
for unit in (deploy / "systemd").rglob("*"):
    if unit.is_file():
        found = re.findall(r"^(?:Environment=)?.*?\b(ROLLCALL_[A-Z_]+|DATABASE_URL|NATS_URL)=", unit.read_text(), re.M)
        problems += [f"{unit.name}: no key {each}" for each in found if each not in [*known_keys, "ROLLCALL_CONFIG"]]
tree = tomllib.loads((root / "src/config/default.toml").read_text())
for key in keys(tomllib.loads((deploy / "systemd/rollcall.toml").read_text())):
    if key not in keys(tree):
        problems.append(f"rollcall.toml: no key {key}")

# The load balancer knows each API, at its port, in the right half.
balanced = dict(re.findall(r"^\s+server (\S+) (\S+)$", (deploy / "haproxy.cfg").read_text(), re.M))
serving = {
    name: f"{name}:{service['environment']['ROLLCALL_HTTP'].rsplit(':')[-1]}"
    for name, service in ours.items()
    if name != "migrate"
}
apis = {name: place for name, place in serving.items() if name.startswith(("command-api", "query-api"))}
if balanced != apis:
    problems.append(f"haproxy.cfg balances {balanced}, compose.yaml serves {apis}")

# Prometheus asks everybody who serves.
[job] = yaml.safe_load((deploy / "prometheus/compose.yml").read_text())["scrape_configs"]
[targets] = job["static_configs"]
if sorted(targets["targets"]) != sorted(serving.values()):
    problems.append(f"prometheus/compose.yml asks {targets['targets']}, compose.yaml serves {serving}")

# Every alert has its place in the runbook.
rules = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())
alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
described = set(re.findall(r"^### (Rollcall\w+)$", (root / "docs/operations.md").read_text(), re.M))
problems += [f"operations.md says nothing of {alert}" for alert in sorted(alerts - described)]
problems += [f"operations.md tells of {alert}, which is no alert" for alert in sorted(described - alerts)]

# What cargo builds from is not ignored.
ignored = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
members = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["members"]
problems += [f"Dockerfile.dockerignore leaves {member} out" for member in members if f"!{member}" not in ignored]

print("\n".join(problems))
sys.exit(1 if problems else 0)
