"""What the description cannot say: values that only a table knows, and refusals that depend on state."""

import collections
import itertools
import uuid

import requests
import schemathesis
from hypothesis import strategies

schemathesis.openapi.format(
    "language-tag", strategies.sampled_from(["en", "de-AT", "EN-gb", "zh-Hant-TW", "sr-Latn", "gsw"])
)
schemathesis.openapi.format(
    "time-zone", strategies.sampled_from(["UTC", "Europe/London", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
)
schemathesis.openapi.format("email", strategies.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}@[a-z0-9]{1,10}\.example", fullmatch=True))

# Refusals of a well-formed request: what is there already, or what an earlier request did.
CODES = {
    "already-exists",
    "conflict",
    "email-differs",
    "email-taken",
    "external-id-taken",
    "gone",
    "idempotency-key-reused",
    "malformed-token",
    "not-found",
    "precondition-failed",
    "user-deactivated",
}

# Rules about values that JSON Schema has no words for.
RULES = (
    "a user may have at most",
    "at most 28 significant digits",
    "is not a token that",
    "is there twice once white space is trimmed",
    "must hold at least one letter or digit",
    # JSON Schema counts 1.0 among the integers; here an integer is written as one.
    "must be a whole number that is not negative",
    "one of given_name, family_name and display_name is required",
)

count = itertools.count()
users = collections.deque(maxlen=4)


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def a_user(base_url):
    """Id and address of a user of the default tenant; every few calls there is a new one, since commands wear users out."""
    number = next(count)
    if not users or number % 3 == 0:
        body = {"email": f"{uuid.uuid4()}@example.com", "given_name": "Ada", "traits": {"seats": 3}}
        created = requests.post(f"{base_url}/api/v1/users", json=body, timeout=20).json()
        users.append((created["id"], body["email"]))
    return users[number % len(users)]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Lets most well-formed requests through to where something happens.

    A user that is not there, an address that is taken, a precondition and an opaque token that nobody gave end a request
    early; a key that was used makes it a replay. One request in eight goes out as it was made.
    """
    if not is_positive(case):
        return
    number = next(count)
    headers, query, body = case.headers, case.query, case.body
    if headers and "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = f"{headers['Idempotency-Key'][:200]}-{number}"
    if number % 8 == 0:
        return
    for name in ("Consistency-Token", "If-Match", "Tenant"):
        if headers and name in headers:
            del headers[name]
    if query and "page_token" in query:
        del query["page_token"]
    if case.path_parameters and "id" in case.path_parameters:
        case.path_parameters["id"], email = a_user(case.operation.base_url.rstrip("/"))
        if case.operation.path.endswith("/verify-email"):
            body["email"] = email
        if case.operation.path.endswith("/change-email"):
            body["email"] = f"{number}-{body['email']}"
    if case.operation.method.upper() == "POST" and case.operation.path == "/api/v1/users":
        body["email"] = f"{number}-{body['email']}"
        body.pop("id", None)
        for source, value in (body.get("external_ids") or {}).items():
            body["external_ids"][source] = f"{number}-{value}"[:200]


@schemathesis.check
def described_requests_are_accepted(context, response, case):
    """A request as it is described is refused only for a reason that no description can foresee."""
    if not is_positive(case) or response.status_code < 400 or response.status_code in (405, 500, 503):
        return
    problem = response.json()
    if problem["code"] in CODES:
        return
    errors = problem.get("errors", [])
    if errors and all(any(rule in error["detail"] for rule in RULES) for error in errors):
        return
    raise AssertionError(f"a request as described was refused: {problem}")


@schemathesis.check
def refusals_are_problems(context, response, case):
    """Whoever refuses says why, as RFC 9457 has it, under the status of the response."""
    if response.status_code < 400 or case.path.startswith(("/readyz", "/health")) or case.method == "HEAD":
        return
    assert response.headers.get("content-type") == ["application/problem+json"], response.headers
    problem = response.json()
    assert problem["status"] == response.status_code, problem
    assert problem["type"] == f"/problems/{problem['code']}", problem
