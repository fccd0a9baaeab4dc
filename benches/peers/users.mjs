// The users that a load has made, with what their peer must know of them: what is verified in the end.

let numbers = 0;

/** What a user is made of: the same for every peer. */
export function newUser() {
    numbers += 1;
    return {
        email: `user.${numbers}@example.com`,
        given_name: "Ada",
        family_name: "Lovelace",
        phone: "+4930123456",
        locale: "en-GB",
        time_zone: "Europe/London",
        kind: "customer",
        traits: { department: "R&D", seats: 3 },
        associations: [{ kind: "membership", key: "gold" }],
        preferences: { email: { newsletter: true } },
    };
}

/** A change, another one every time. */
export function newChange() {
    numbers += 1;
    return { family_name: `King-${numbers}`, traits: { department: "R&D", seats: numbers % 1000 } };
}

export class Users {
    all = [];
    #next = 0;

    /** The next user that nobody is at work on: two changes at once would leave open which was the last. */
    take(fits = () => true) {
        for (let tries = 0; tries < this.all.length; tries += 1) {
            const user = this.all[this.#next];
            this.#next = (this.#next + 1) % this.all.length;
            if (!user.busy && fits(user)) return user;
        }
        throw new Error("there are fewer users than connections: BENCH_SECONDS is too short");
    }

    made(id, family_name) {
        this.all.push({ id, family_name, changes: 0, busy: false, unknown: false });
    }

    /** The parts of a request that changes the user's family name; `answered` sees the answer's body. */
    changing(user, family_name, answered = () => {}) {
        user.busy = true;
        return {
            done: (body) => {
                answered(body);
                user.busy = false;
                user.family_name = family_name;
                user.changes += 1;
            },
            // It may have happened or not.
            failed: () => {
                user.busy = false;
                user.unknown = true;
            },
        };
    }

    /** Calls for a thousand at a time of those that are known. */
    async thousands(call) {
        const known = this.all.filter((user) => !user.unknown);
        for (let from = 0; from < known.length; from += 1000) await call(known.slice(from, from + 1000));
        return known.length;
    }
}

/** The id in an answer such as {"id":"…"} or {"data":{"id":"…"}}, without parsing all of it. */
export function idOf(body) {
    const id = /"id":"([0-9a-f-]{36})"/.exec(body.latin1Slice());
    if (id === null) throw new Error(`an answer without an id: ${body.toString().slice(0, 500)}`);
    return id[1];
}
