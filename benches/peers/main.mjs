// Puts the same loads on Rollcall and on its peers, in turn, and writes the table.
//
// What it needs comes in the environment; scripts/bench-peers.sh starts everything and sets it.

import { writeFileSync } from "node:fs";
import os from "node:os";

import { Directus } from "./directus.mjs";
import { Eventsourcing } from "./eventsourcing.mjs";
import { Rollcall } from "./rollcall.mjs";

const OPERATIONS = ["create", "read", "update", "revert"];
const CONNECTIONS = [1, 16, 64];

const { BENCH_OUT, ROLLCALL_URL, DIRECTUS_URL, DIRECTUS_TOKEN, DIRECTUS_ABSENT, EVENTSOURCING_PYTHON } = process.env;
const seconds = Number(process.env.BENCH_SECONDS);
const versions = JSON.parse(process.env.BENCH_VERSIONS);
if (!(seconds > 0)) throw new Error("BENCH_SECONDS is a number of seconds");

const rollcall = new Rollcall(ROLLCALL_URL);
const eventsourcing = new Eventsourcing(EVENTSOURCING_PYTHON);
const directus = DIRECTUS_URL ? new Directus(DIRECTUS_URL, DIRECTUS_TOKEN) : null;
const peers = [rollcall, ...(directus ? [directus] : []), eventsourcing];
await directus?.prepare();

const rows = [];
const wrong = [];
for (const operation of OPERATIONS) {
    for (const connections of CONNECTIONS) {
        // Side by side: what else the machine does while one is measured, it most likely does to the others too.
        for (const peer of peers) {
            if (peer.absent[operation]) continue;
            const { name } = peer;
            const outcome = await peer.load(operation, connections, seconds);
            rows.push({ operation, connections, peer: name, ...outcome });
            const { requests_per_second, errors, first_error } = outcome;
            console.error(`  ${operation}, ${connections} connections, ${name}: ${requests_per_second.toFixed(0)}/s`);
            if (errors > 0) wrong.push(`${name}: ${errors} errors in ${operation}, the first: ${first_error}`);
        }
    }
    // Also before the next operation: what is written is in the read model by then.
    for (const peer of peers) await verified(peer);
}

async function verified(peer) {
    try {
        peer.verified = await peer.verify();
    } catch (error) {
        wrong.push(String(error));
        peer.verified = null;
    }
}

const ofRollcall = ({ operation, connections }) =>
    rows.find((row) => row.peer === rollcall.name && row.operation === operation && row.connections === connections);
for (const row of rows) {
    const ours = ofRollcall(row);
    row.rollcall_ratio =
        ours && row.peer !== rollcall.name && row.requests_per_second > 0
            ? ours.requests_per_second / row.requests_per_second
            : null;
}

const number = (value, digits) =>
    value === null || value === undefined
        ? ""
        : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const ms = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);

const lines = [
    "| operation | connections | peer | requests/s | p50 ms | p99 ms | errors | Rollcall/peer |",
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
];
for (const operation of OPERATIONS) {
    for (const { name, absent } of peers) {
        if (absent[operation]) lines.push(`| ${operation} | | ${name} | ${absent[operation]} | | | | |`);
    }
    if (!directus) lines.push(`| ${operation} | | Directus | not measured: ${DIRECTUS_ABSENT} | | | | |`);
    for (const row of rows.filter((row) => row.operation === operation)) {
        lines.push(
            `| ${operation} | ${row.connections} | ${row.peer} | ${number(row.requests_per_second, 0)} | ` +
                `${ms(row.p50_ms)} | ${ms(row.p99_ms)} | ${row.errors} | ${number(row.rollcall_ratio, 1)} |`,
        );
    }
}
const cpus = os.cpus();
const memoryGib = Math.round(os.totalmem() / 2 ** 30);
lines.push(
    "",
    `${seconds} s each after ${seconds / 5} s of warm-up, closed loads, on ${cpus.length} cores (${cpus[0].model.trim()}, ` +
        `${memoryGib} GiB) shared by the load, PostgreSQL ${versions.postgresql} with default durability, and the services.`,
    "",
    `- Rollcall ${versions.rollcall} over HTTP, with everything on: encryption, unique emails, projections, NATS.`,
    directus
        ? `- Directus ${versions.directus} on Node ${versions.node} over HTTP, one process as it comes, activity and ` +
              "revisions kept, rate and pressure limits and cache off, an admin's static token."
        : `- Directus: not measured: ${DIRECTUS_ABSENT}.`,
    `- eventsourcing ${versions.eventsourcing} on Python ${versions.python}, in-process: no HTTP, no encryption, no unique ` +
        "emails, no read model. Connections are threads, spread over a process for each core. A read is `repository.get`.",
    "- Read and changed is each user that the peer has made, in turn: a faster peer works on more of them.",
    "",
);
for (const { name, verified } of peers) {
    if (verified) {
        const { users, changes } = verified;
        lines.push(`Verified afterwards: ${name}, ${number(users, 0)} users with all of their ${number(changes, 0)} changes.`);
    }
}
for (const line of wrong) lines.push(`**Wrong**: ${line.replaceAll(/\s+/g, " ")}`);

const markdown = `${lines.join("\n")}\n`;
writeFileSync(`${BENCH_OUT}.md`, markdown);
writeFileSync(
    `${BENCH_OUT}.json`,
    `${JSON.stringify(
        {
            measured_at: new Date().toISOString(),
            machine: { cores: cpus.length, cpu: cpus[0].model.trim(), memory_gib: memoryGib, kernel: os.release() },
            versions,
            seconds,
            absent: Object.fromEntries([
                ...peers.map(({ name, absent }) => [name, absent]),
                ...(directus ? [] : [["Directus", DIRECTUS_ABSENT]]),
            ]),
            rows,
            verified: Object.fromEntries(peers.map(({ name, verified }) => [name, verified])),
            wrong,
        },
        null,
        2,
    )}\n`,
);
process.stdout.write(markdown);
eventsourcing.close();
process.exitCode = wrong.length > 0 ? 1 : 0;
