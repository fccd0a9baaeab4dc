// A small HTTP/1.1 client with keep-alive, on plain sockets, and a closed load: each connection sends when it has its
// answer. The same for every peer that speaks HTTP: the load must cost the machine little, and all of them alike.

import net from "node:net";

const HEAD_END = Buffer.from("\r\n\r\n");

/** One connection, one request at a time; opened when it is first needed, and again after it broke. */
export class Connection {
    #host;
    #port;
    #socket = null;
    #received = Buffer.alloc(0);
    #waiting = null;

    constructor(base) {
        const { hostname, port } = new URL(base);
        this.#host = hostname;
        this.#port = Number(port);
    }

    /** Sends the bytes of a request; its answer's status and body. */
    async request(bytes) {
        if (this.#socket === null) await this.#open();
        return new Promise((answer, failed) => {
            this.#waiting = { answer, failed };
            this.#socket.write(bytes);
        });
    }

    close() {
        this.#socket?.destroy();
        this.#socket = null;
    }

    #open() {
        return new Promise((opened, failed) => {
            const socket = net.connect({ host: this.#host, port: this.#port, noDelay: true }, () => {
                this.#socket = socket;
                this.#received = Buffer.alloc(0);
                opened();
            });
            socket.on("data", (bytes) => this.#data(bytes));
            socket.on("error", (error) => {
                failed(error);
                this.#broken(error);
            });
            socket.on("close", () => this.#broken(new Error("the connection was closed")));
        });
    }

    #broken(error) {
        this.close();
        const waiting = this.#waiting;
        this.#waiting = null;
        waiting?.failed(error);
    }

    #data(bytes) {
        this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
        const end = this.#received.indexOf(HEAD_END);
        if (end < 0) return;
        const head = this.#received.latin1Slice(0, end);
        const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0;
        if (/\r\ntransfer-encoding:/i.test(head)) {
            this.#broken(new Error("this client reads no chunked answers"));
            return;
        }
        const all = end + HEAD_END.length + Number(length);
        if (this.#received.length < all) return;
        const body = this.#received.subarray(end + HEAD_END.length, all);
        this.#received = this.#received.subarray(all);
        const { answer } = this.#waiting;
        this.#waiting = null;
        answer({ status: Number(head.slice(9, 12)), body });
    }
}

/** The bytes of a request; `headers` are whole lines. */
export function request(method, path, headers, body) {
    const text = body === undefined ? "" : JSON.stringify(body);
    const content = body === undefined ? "" : "Content-Type: application/json\r\n";
    return (
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${headers}${content}` +
        `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`
    );
}

/** One request outside of any load: its body as JSON, or an error where the status is not 200. */
export async function ask(base, bytes) {
    const connection = new Connection(base);
    try {
        const { status, body } = await connection.request(bytes);
        if (status !== 200) throw new Error(`answered ${status}: ${body.toString().slice(0, 500)}`);
        return JSON.parse(body.toString());
    } finally {
        connection.close();
    }
}

/**
 * Keeps the connections busy for so many seconds, after a fifth of that as warm-up. `next` makes the next request:
 * `{ bytes, expected, done(body), failed() }`. Latencies are of the requests that were sent after the warm-up and answered
 * with the status that was expected; the others are errors, whenever they were sent.
 */
export async function closedLoad(base, connections, seconds, next) {
    const latencies = [];
    let errors = 0;
    let firstError = null;
    const measuredFrom = performance.now() + seconds * 200;
    const until = measuredFrom + seconds * 1000;
    const all = Array.from({ length: connections }, () => new Connection(base));
    let cpu = null;
    await Promise.all(
        all.map(async (connection) => {
            for (;;) {
                const sent = performance.now();
                if (sent >= until) return;
                if (sent >= measuredFrom) cpu ??= process.cpuUsage();
                const { bytes, expected, done, failed } = next();
                try {
                    const { status, body } = await connection.request(bytes);
                    const answered = performance.now();
                    if (status !== expected) throw new Error(`answered ${status}: ${body.toString().slice(0, 500)}`);
                    done(body);
                    if (sent >= measuredFrom) latencies.push(answered - sent);
                } catch (error) {
                    failed();
                    errors += 1;
                    firstError ??= String(error);
                }
            }
        }),
    );
    const elapsedS = (performance.now() - measuredFrom) / 1000;
    const { user, system } = process.cpuUsage(cpu ?? undefined);
    for (const connection of all) connection.close();
    latencies.sort((a, b) => a - b);
    return {
        requests: latencies.length,
        errors,
        first_error: firstError,
        requests_per_second: latencies.length / elapsedS,
        p50_ms: quantile(latencies, 0.5),
        p99_ms: quantile(latencies, 0.99),
        client_cores: (user + system) / 1e6 / elapsedS,
    };
}

function quantile(sorted, share) {
    return sorted.length === 0 ? null : sorted[Math.ceil(sorted.length * share) - 1];
}
