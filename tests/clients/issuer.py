"""An issuer of tokens: issuer.py DIRECTORY make | issuer.py DIRECTORY token TENANT"""

import json
import pathlib
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

directory = pathlib.Path(sys.argv[1])
key_file = directory / "key.pem"
KID = "docs-1"

if sys.argv[2] == "make":
    directory.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
    keys = [{**public, "kid": KID, "use": "sig", "alg": "EdDSA"}]
    (directory / "jwks.json").write_text(json.dumps({"keys": keys}))
else:
    now = int(time.time())
    claims = {
        "iss": "https://login.example.com",
        "aud": "rollcall",
        "sub": "docs",
        "tenant": sys.argv[3],
        "scope": "users:read users:write audit:read",
        "iat": now,
        "exp": now + 600,
    }
    print(jwt.encode(claims, key_file.read_bytes(), algorithm="EdDSA", headers={"kid": KID}))
