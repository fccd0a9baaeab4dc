// Directus over HTTP: the collection, and the requests.

import { ask, closedLoad, request } from "./http.mjs";
import { idOf, newChange, newUser, Users } from "./users.mjs";

const COLLECTION = "users_bench";

const text = (field, schema = {}) => ({ field, type: "string", schema, meta: {} });
const json = (field) => ({ field, type: "json", schema: {}, meta: { special: ["cast-json"] } });
const instant = (field, special) => ({ field, type: "timestamp", schema: {}, meta: { special: [special] } });

const FIELDS = [
    { field: "id", type: "uuid", schema: { is_primary_key: true }, meta: { special: ["uuid"] } },
    text("email", { is_nullable: false, is_unique: true }),
    text("given_name"),
    text("family_name"),
    text("phone"),
    text("locale"),
    text("time_zone"),
    text("kind"),
    json("traits"),
    json("associations"),
    json("preferences"),
    instant("created_at", "date-created"),
    instant("updated_at", "date-updated"),
];

export class Directus {
    name = "Directus";
    absent = {};
    #base;
    #headers;
    #users = new Users();

    constructor(base, token) {
        this.#base = base;
        this.#headers = `Authorization: Bearer ${token}\r\n`;
    }

    #ask(method, path, body) {
        return ask(this.#base, request(method, path, this.#headers, body));
    }

    /** The collection, with all of its history kept: that is what a revert needs. */
    async prepare() {
        await this.#ask("POST", "/collections", {
            collection: COLLECTION,
            schema: {},
            meta: { accountability: "all" },
            fields: FIELDS,
        });
    }

    async load(operation, connections, seconds) {
        if (operation === "revert") await this.#readRevisions();
        return closedLoad(this.#base, connections, seconds, () => this[operation]());
    }

    // Of what was written it answers the id, as Rollcall does.
    create() {
        const user = newUser();
        return {
            bytes: request("POST", `/items/${COLLECTION}?fields=id`, this.#headers, user),
            expected: 200,
            done: (body) => this.#users.made(idOf(body), user.family_name),
            failed: () => {},
        };
    }

    read() {
        const { id } = this.#users.take();
        return {
            bytes: request("GET", `/items/${COLLECTION}/${id}`, this.#headers),
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
            bytes: request("PATCH", `/items/${COLLECTION}/${user.id}?fields=id`, this.#headers, change),
            expected: 200,
            ...this.#users.changing(user, change.family_name),
        };
    }

    /** To a revision that differs from what is: each revert changes something. */
    revert() {
        const other = (user) => user.revisions.find(({ family_name }) => family_name !== user.family_name);
        const user = this.#users.take((user) => other(user) !== undefined);
        const revision = other(user);
        return {
            bytes: request("POST", `/utils/revert/${revision.id}`, this.#headers),
            expected: 204,
            ...this.#users.changing(user, revision.family_name),
        };
    }

    async #readRevisions() {
        const users = new Map(this.#users.all.map((user) => [user.id, user]));
        for (const user of users.values()) user.revisions = [];
        for (let after = 0; ; ) {
            const filter = JSON.stringify({ collection: { _eq: COLLECTION }, id: { _gt: after } });
            const path = `/revisions?fields=id,item,data&sort=id&limit=1000&filter=${encodeURIComponent(filter)}`;
            const { data } = await this.#ask("GET", path);
            for (const { id, item, data: fields } of data) {
                users.get(item)?.revisions.push({ id, family_name: fields.family_name });
                after = id;
            }
            if (data.length === 0) return;
        }
    }

    /** Every user is there with its last name, and a revision of each of its changes. */
    async verify() {
        let changes = 0;
        const users = await this.#users.thousands(async (users) => {
            const filter = { id: { _in: users.map(({ id }) => id) } };
            const query = { filter, fields: ["id", "family_name"], limit: -1 };
            const { data } = await this.#ask("SEARCH", `/items/${COLLECTION}`, { query });
            const found = new Map(data.map(({ id, family_name }) => [id, family_name]));
            for (const { id, family_name, changes: changed } of users) {
                if (found.get(id) !== family_name) throw new Error(`Directus: not as it was written: ${id}`);
                changes += changed;
            }
        });
        const filter = encodeURIComponent(JSON.stringify({ collection: { _eq: COLLECTION } }));
        const { data } = await this.#ask("GET", `/revisions?aggregate[count]=id&filter=${filter}`);
        const revisions = Number(data[0].count.id);
        if (revisions < users + changes) {
            throw new Error(`Directus: ${revisions} revisions of ${users} users and ${changes} changes`);
        }
        return { users, changes };
    }
}
