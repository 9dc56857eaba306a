// What all flows share: where the server is, fresh names, clients, and waiting for events.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { ClientEvent, createClient } from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

// Far over what a server on loopback needs, so that only a lost wake-up or a lost echo runs into it.
export const DEADLINE_MS = 20_000;

// Any room ID that is valid may carry account data: the server need not know the room.
export const ROOM_ID = "!e2e:localhost";

export const DEVICE_DATA_SYNC_KEY = "org.matrix.msc4331.device_account_data";

// Whether the server is a gateway before another homeserver, which tells device account data as global
// account data: the type names the device, and this content stands for none.
const IS_GATEWAY = "KITBAG_TEST_GATEWAY" in process.env;
const DELETED = JSON.stringify({ "org.matrix.msc4331.deleted": true });

// In contents and passwords, neither of which may reach the server's log or a body of status 5xx.
const CANARY = process.env.KITBAG_TEST_CANARY ?? "canary-content-unset";

// What every access token and every refresh token begins with, those of Synapse too.
const TOKEN_PREFIXES = ["kt_", "ktr_", "syt_", "syr_"];

export const PASSWORD = `correct horse battery staple ${CANARY}`;

logger.setLevel(process.env.KITBAG_E2E_LOG ?? "error");

export function baseUrl() {
    const url = process.env.KITBAG_TEST_URL;
    if (!url) throw new Error("KITBAG_TEST_URL is not set: run `cargo xtask e2e js`");
    return url.replace(/\/+$/, "");
}

/** Makes a content that carries the canary, which must never reach the server's log. */
export function content(fields = {}) {
    return { canary: CANARY, ...fields };
}

// Below the SDK, which sends its requests through this: no answer of status 5xx may tell a secret.
const findings = [];
const unwatched = globalThis.fetch;
globalThis.fetch = async (resource, init) => {
    const response = await unwatched(resource, init);
    if (response.status >= 500) {
        const body = await response.clone().text();
        const told = [CANARY, ...TOKEN_PREFIXES].filter((secret) => body.includes(secret));
        findings.push(...told.map((secret) => `${response.status} tells ${secret}`));
    }
    return response;
};
after(() => assert.deepEqual(findings, []));

/** Runs a test of Kitbag as a homeserver; `why` tells what another one has not. */
export function standalone(name, why, run) {
    assert.ok(why);
    if (!IS_GATEWAY) test(name, run);
}

/** Makes a type that was never stored, with the characters that a client must escape. */
export function freshType() {
    return `com.example.e2e/${randomBytes(4).toString("hex")} ü%`;
}

/** Rejects once the deadline is over: the SDK itself waits for an echo without any limit. */
export async function within(what, promise) {
    let timer;
    const deadline = new Promise((_, reject) => {
        timer = setTimeout(
            () => reject(new Error(`no ${what} within ${DEADLINE_MS / 1000} s`)),
            DEADLINE_MS,
        );
    });
    try {
        return await Promise.race([promise, deadline]);
    } finally {
        clearTimeout(timer);
    }
}

/** Keeps what a running sync delivers until a test takes it. */
class Inbox {
    #items = [];
    #waiting = [];

    put(item) {
        const index = this.#waiting.findIndex(({ matches }) => matches(item));
        if (index >= 0) this.#waiting.splice(index, 1)[0].resolve(item);
        else this.#items.push(item);
    }

    /** Waits for an item that matches, and removes it: the next call wants a newer one. */
    take(what, matches) {
        const index = this.#items.findIndex(matches);
        if (index >= 0) return Promise.resolve(this.#items.splice(index, 1)[0]);
        return within(what, new Promise((resolve) => this.#waiting.push({ matches, resolve })));
    }
}

/** One logged-in client and what its sync loop has seen. */
export class Device {
    events = new Inbox();
    syncs = new Inbox();

    constructor(login, options = {}) {
        this.client = createClient({
            baseUrl: baseUrl(),
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            fetchFn: (resource, init) => this.#fetch(resource, init),
            ...options,
        });
        this.client.on(ClientEvent.AccountData, (event) => {
            this.events.put({ type: event.getType(), content: event.getContent() });
        });
    }

    // The SDK drops the keys of /sync that it does not know: copies of the answers show them.
    async #fetch(resource, init) {
        const response = await fetch(resource, init);
        if (response.ok && new URL(resource).pathname.endsWith("/sync")) {
            response
                .clone()
                .json()
                .then(
                    (body) => this.syncs.put(body),
                    () => {}, // aborted by stopClient
                );
        }
        return response;
    }

    /** Starts the client and waits until its initial sync has been processed. */
    async start() {
        const prepared = new Promise((resolve) => {
            this.client.on(ClientEvent.Sync, (state) => {
                if (state === "PREPARED") resolve();
            });
        });
        await this.client.startClient({ initialSyncLimit: 1 });
        await within("initial sync", prepared);
    }

    /** Waits until the SDK tells of an entry of this type, and returns its content. */
    async sees(type) {
        return (await this.events.take(type, (event) => event.type === type)).content;
    }

    /** Sends a request through the SDK's own HTTP layer. */
    request(method, path, body) {
        return this.client.http.authedRequest(method, path, undefined, body);
    }

    /** Returns the MSC4331 path of one of this device's entries. */
    entryPath(type) {
        const [user, device, data] = [this.client.getUserId(), this.client.getDeviceId(), type].map(
            encodeURIComponent,
        );
        return `/user/${user}/devices/${device}/net.zemos.account_data/${data}`;
    }

    /** Makes a test for a /sync answer that brings this entry of this device. */
    brings(type, body) {
        const wanted = JSON.stringify({ type, content: body });
        return (sync) => {
            return deviceEvents(sync, this.client.getDeviceId()).some((event) => {
                return JSON.stringify({ type: event.type, content: event.content }) === wanted;
            });
        };
    }
}

/** Returns the entries of a device in a /sync answer. */
function deviceEvents(sync, deviceId) {
    if (!IS_GATEWAY) return sync[DEVICE_DATA_SYNC_KEY]?.[deviceId]?.events ?? [];
    const prefix = `${DEVICE_DATA_SYNC_KEY}.${deviceId}.`;
    return (sync.account_data?.events ?? [])
        .filter(({ type }) => type.startsWith(prefix))
        .map(({ type, content }) => ({
            type: type.slice(prefix.length),
            content: JSON.stringify(content) === DELETED ? {} : content,
        }));
}

/** Registers a user and returns the localpart. */
export async function registerUser() {
    const name = `e2e-${randomBytes(8).toString("hex")}`;
    const client = createClient({ baseUrl: baseUrl() });
    await client.register(name, PASSWORD, null, { type: "m.login.dummy" }, undefined, undefined, true);
    return name;
}

/** Logs a new device in. */
export function logIn(user, fields = {}) {
    return createClient({ baseUrl: baseUrl() }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password: PASSWORD,
        initial_device_display_name: "e2e",
        ...fields,
    });
}

/** Registers a user, starts two devices, and stops them when the test is over. */
export async function twoDevices(test) {
    const user = await registerUser();
    const pair = [new Device(await logIn(user)), new Device(await logIn(user))];
    test.after(() => pair.forEach(({ client }) => client.stopClient()));
    for (const device of pair) await device.start();
    return pair;
}
