"""Asks `rollcall config` whether it takes what compose.yaml and the units give it: config_check.py BINARY SECRETS"""

import os
import pathlib
import re
import subprocess
import sys

import yaml

binary, secrets = sys.argv[1], pathlib.Path(sys.argv[2])
deploy = pathlib.Path(__file__).parents[2] / "deploy"
problems: list[str] = []


def ask(what: str, environment: dict[str, str], *arguments: str) -> None:
    asked = subprocess.run(
        [binary, "config", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    # A variable that is no key is only warned of at a start; here it is a mistake.
    if asked.returncode or "is no key" in asked.stderr:
        problems.append(f"{what}: {asked.stderr.strip()}")


compose = yaml.safe_load((deploy / "compose.yaml").read_text())
files = {name: secrets / pathlib.Path(entry["file"]).name for name, entry in compose["secrets"].items()}
for name, service in compose["services"].items():
    if not service["image"].startswith("rollcall:"):
        continue
    environment = {}
    for key, value in service["environment"].items():
        # ${NAME:-default} and ${NAME:?what is missing}
        value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        value = re.sub(r"\$\{\w+:\?[^}]*\}", "https://login.example.com", value)
        environment[key] = re.sub(r"/run/secrets/(\w+)", lambda found: str(files[found[1]]), value)
    ask(f"compose.yaml, {name}", environment)

credentials = secrets / "credentials"
credentials.mkdir(exist_ok=True)
for unit in ["rollcall.service", "rollcall@.service", "rollcall@projector.service", "rollcall-migrate.service"]:
    parts = [deploy / "systemd" / re.sub(r"@\w+", "@", unit), *(deploy / "systemd" / f"{unit}.d").glob("*.conf")]
    text = "\n".join(part.read_text() for part in parts)
    for credential in re.findall(r"^LoadCredential=([^:]+):", text, re.M):
        (credentials / credential).write_text("0" * 64 if "key" in credential else "postgres://owner:x@db/rollcall")
    if "nats.url" in text:
        (credentials / "nats.url").write_text("nats://publisher:x@nats:4222")
    pairs = " ".join(re.findall(r"^Environment=(.*)$", text, re.M)).replace("%d", str(credentials)).split()
    if "@" in unit:
        pairs += [
            line
            for line in (deploy / "systemd/command-api.env").read_text().splitlines()
            if line and not line.startswith("#")
        ]
    environment = dict(pair.split("=", 1) for pair in pairs)
    config = re.search(r"^ExecStart=.* --config (\S+)", text, re.M)
    arguments = ["--config", str(deploy / "systemd" / pathlib.Path(config[1]).name)] if config else []
    ask(unit, environment, *arguments)

print("\n".join(problems))
sys.exit(1 if problems else 0)
