// Rollcall over HTTP.

import { ask, closedLoad, request } from "./http.mjs";
import { idOf, newChange, newUser, Users } from "./users.mjs";

const PATIENCE_MS = 60_000;

export class Rollcall {
    name = "Rollcall";
    absent = { revert: "does not exist yet" };
    #base;
    #users = new Users();

    constructor(base) {
        this.#base = base;
    }

    load(operation, connections, seconds) {
        return closedLoad(this.#base, connections, seconds, () => this[operation]());
    }

    create() {
        const user = newUser();
        return {
            bytes: request("POST", "/api/v1/users", "", user),
            expected: 201,
            done: (body) => this.#users.made(idOf(body), user.family_name),
            failed: () => {},
        };
    }

    read() {
        const { id } = this.#users.take();
        return {
            bytes: request("GET", `/api/v1/users/${id}`, ""),
            expected: 200,
            done: (body) => {
                if (idOf(body) !== id) throw new Error("another user was read");
            },
            failed: () => {},
        };
    }

    update() {
        const user = this.#users.take();
        const change = newChange();
        return {
            bytes: request("PATCH", `/api/v1/users/${user.id}`, "", change),
            expected: 200,
            // A change of several parts is several events, and as many versions.
            ...this.#users.changing(user, change.family_name, (body) => {
                user.version = JSON.parse(body.toString()).version;
            }),
        };
    }

    /** Every user is in the read model, with its last name and the version that was answered last; waits for that. */
    async verify() {
        const deadline = performance.now() + PATIENCE_MS;
        let changes = 0;
        const users = await this.#users.thousands(async (users) => {
            for (;;) {
                const wrong = await this.#wrong(users);
                if (wrong.length === 0) break;
                if (performance.now() > deadline) throw new Error(`Rollcall: not as it was written: ${wrong[0]}`);
                await new Promise((waited) => setTimeout(waited, 50));
            }
            for (const user of users) changes += user.changes;
        });
        return { users, changes };
    }

    async #wrong(users) {
        const ids = users.map(({ id }) => id);
        const { items } = await ask(this.#base, request("POST", "/api/v1/users/batch-get", "", { ids }));
        const found = new Map(items.map((item) => [item.id, item]));
        return users
            .filter(({ id, family_name, version = 1 }) => {
                const item = found.get(id);
                return item?.family_name !== family_name || item.version !== version;
            })
            .map(({ id }) => id);
    }
}
