"""The same users in the Python library eventsourcing, with its PostgreSQL recorder as it comes: in-process, no HTTP.

N connections are N threads, spread over as many processes as there are cores, so that one interpreter's lock does not
hold back the others; each thread has a connection of the pool. Takes orders as lines of JSON on stdin, answers each with
a line on stdout, ends with stdin.
"""

import json
import multiprocessing
import os
import random
import sys
import threading
import time
from dataclasses import dataclass
from itertools import count

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

# Before any thread is started: a process that has some must not fork.
FORK = multiprocessing.get_context("fork")
CORES = len(os.sched_getaffinity(0))


class User(Aggregate):
    @event("Registered")
    def __init__(
        self, email, given_name, family_name, phone, locale, time_zone, kind, traits, associations, preferences
    ):
        self.email = email
        self.given_name = given_name
        self.family_name = family_name
        self.phone = phone
        self.locale = locale
        self.time_zone = time_zone
        self.kind = kind
        self.traits = traits
        self.associations = associations
        self.preferences = preferences

    @event("Updated")
    def update(self, family_name, traits):
        self.family_name = family_name
        self.traits = {**self.traits, **traits}


class Users(Application):
    def create(self, number):
        user = User(
            email=f"user.{number}@example.com",
            given_name="Ada",
            family_name="Lovelace",
            phone="+4930123456",
            locale="en-GB",
            time_zone="Europe/London",
            kind="customer",
            traits={"department": "R&D", "seats": 3},
            associations=[{"kind": "membership", "key": "gold"}],
            preferences={"email": {"newsletter": True}},
        )
        self.save(user)
        return user.id

    def read(self, id):
        return self.repository.get(id)

    def update(self, id, family_name, seats):
        user = self.repository.get(id)
        user.update(family_name, {"department": "R&D", "seats": seats})
        self.save(user)


@dataclass
class Known:
    """A user that was made, and what is known of it."""

    id: object
    family_name: str = "Lovelace"
    changes: int = 0
    unknown: bool = False


def application(threads, create_table=False):
    return Users(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "CREATE_TABLE": "yes" if create_table else "no",
            # Each thread keeps one; none is made within the measured time.
            "POSTGRES_POOL_SIZE": str(threads),
            "POSTGRES_MAX_OVERFLOW": "0",
        }
    )


def work(answer, barrier, operation, threads, seconds, numbers, known):
    """What one process does; `known` are its share of the users."""
    users = application(threads)
    latencies, errors, made = [], [], []
    # A thread goes through users of its own.
    shares = [known[thread::threads] for thread in range(threads)]

    def call(share, step):
        number = next(numbers)
        match operation:
            case "create":
                made.append(Known(users.create(number)))
            case "read":
                user = share[step % len(share)]
                if users.read(user.id).id != user.id:
                    raise ValueError("another user was read")
            case "update":
                user = share[step % len(share)]
                name = f"King-{number}"
                try:
                    users.update(user.id, name, number % 1000)
                except BaseException:
                    user.unknown = True
                    raise
                user.family_name = name
                user.changes += 1

    def thread(share, measured_from, until):
        for step in count():
            begun = time.perf_counter()
            if begun >= until:
                return
            try:
                call(share, step)
                if begun >= measured_from:
                    latencies.append(time.perf_counter() - begun)
            except Exception as error:
                errors.append(repr(error))

    barrier.wait()
    measured_from = time.perf_counter() + seconds / 5
    until = measured_from + seconds
    all_threads = [threading.Thread(target=thread, args=(share, measured_from, until)) for share in shares]
    for one in all_threads:
        one.start()
    for one in all_threads:
        one.join()
    elapsed = time.perf_counter() - measured_from
    users.close()
    answer.send((latencies, errors, elapsed, made if operation == "create" else known))


def check(answer, known):
    """Every user can be read, with its last name and as many versions as it was changed."""
    users = application(1)
    changes = 0
    try:
        for user in known:
            found = users.read(user.id)
            if (found.family_name, found.version) != (user.family_name, 1 + user.changes):
                raise ValueError(f"not as it was written: {user.id}")
            changes += user.changes
        answer.send({"users": len(known), "changes": changes})
    except Exception as error:
        answer.send({"failed": repr(error)})
    users.close()


def forked(targets):
    """Runs each function with its arguments in a process of its own; what they send, in that order."""
    started = []
    for target, *arguments in targets:
        receive, send = FORK.Pipe(duplex=False)
        process = FORK.Process(target=target, args=(send, *arguments), daemon=True)
        process.start()
        send.close()
        started.append((process, receive))
    answers = [receive.recv() for _, receive in started]
    for process, _ in started:
        process.join()
    return answers


def make_tables(answer):
    application(1, create_table=True).close()
    answer.send(None)


def quantile(ordered, share):
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] * 1000 if ordered else None


def main():
    known = []
    first_number = 1
    forked([(make_tables,)])
    for line in sys.stdin:
        order = json.loads(line)
        if order["operation"] == "verify":
            whole = [user for user in known if not user.unknown]
            parts = forked([(check, whole[process::CORES]) for process in range(CORES)])
            failed = next((part["failed"] for part in parts if "failed" in part), None)
            reply = {
                "failed": failed,
                "users": sum(part.get("users", 0) for part in parts),
                "changes": sum(part.get("changes", 0) for part in parts),
            }
        else:
            processes = min(order["connections"], CORES)
            # Or each load would begin with the same users.
            random.shuffle(known)
            barrier = FORK.Barrier(processes, timeout=60)
            parts = forked(
                [
                    (
                        work,
                        barrier,
                        order["operation"],
                        order["connections"] // processes + (process < order["connections"] % processes),
                        order["seconds"],
                        count(first_number + process, processes),
                        known[process::processes],
                    )
                    for process in range(processes)
                ]
            )
            # More than any load can use.
            first_number += 100_000_000
            # They come back as copies, with what happened to them; one process has all of the users, or two share them.
            if order["operation"] == "create":
                known += [user for part in parts for user in part[3]]
            elif order["operation"] == "update":
                known = [user for part in parts for user in part[3]]
            latencies = sorted(latency for part in parts for latency in part[0])
            errors = [error for part in parts for error in part[1]]
            reply = {
                "requests": len(latencies),
                "errors": len(errors),
                "first_error": errors[0] if errors else None,
                "requests_per_second": len(latencies) / max(part[2] for part in parts),
                "p50_ms": quantile(latencies, 0.50),
                "p99_ms": quantile(latencies, 0.99),
            }
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
