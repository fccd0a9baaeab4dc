// The Python library eventsourcing, in a process of its own that takes orders.

import { spawn } from "node:child_process";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

export class Eventsourcing {
    name = "eventsourcing";
    absent = { revert: "has no counterpart" };
    #child;
    #lines;

    /** `python` has the library; the environment says where PostgreSQL is. */
    constructor(python) {
        const script = fileURLToPath(new URL("eventsourcing_users.py", import.meta.url));
        this.#child = spawn(python, [script], { stdio: ["pipe", "pipe", "inherit"] });
        this.#lines = readline.createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    }

    async #order(order) {
        this.#child.stdin.write(`${JSON.stringify(order)}\n`);
        const { value, done } = await this.#lines.next();
        if (done) throw new Error("eventsourcing: the process ended");
        return JSON.parse(value);
    }

    load(operation, connections, seconds) {
        return this.#order({ operation, connections, seconds });
    }

    async verify() {
        const { failed, users, changes } = await this.#order({ operation: "verify" });
        if (failed) throw new Error(`eventsourcing: ${failed}`);
        return { users, changes };
    }

    close() {
        this.#child.stdin.end();
    }
}
