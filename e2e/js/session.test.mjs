// matrix-js-sdk's sessions: log-in, refresh tokens, log-out.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "matrix-js-sdk";
import {
    baseUrl,
    content,
    Device,
    freshType,
    logIn,
    PASSWORD,
    registerUser,
    standalone,
    twoDevices,
} from "./support.mjs";

test("login gives each device its own identity", async (t) => {
    const [a, b] = await twoDevices(t);
    for (const { client } of [a, b]) {
        const who = await client.whoami();
        assert.equal(who.user_id, client.getUserId());
        assert.equal(who.device_id, client.getDeviceId());
    }
    assert.equal(a.client.getUserId(), b.client.getUserId());
    assert.notEqual(a.client.getDeviceId(), b.client.getDeviceId());
    const { devices } = await a.client.getDevices();
    assert.deepEqual(
        new Set(devices.map((device) => device.device_id)),
        new Set([a.client.getDeviceId(), b.client.getDeviceId()]),
    );
});

test("login keeps the asked device ID", async () => {
    const login = await logIn(await registerUser(), { device_id: "E2EDEVICE" });
    assert.equal(login.device_id, "E2EDEVICE");
});

test("loginWithPassword uses the old form of the request", async () => {
    const user = await registerUser();
    const client = createClient({ baseUrl: baseUrl() });
    const login = await client.loginWithPassword(user, PASSWORD);
    assert.match(login.user_id, new RegExp(`^@${user}:`));
    await client.whoami();
});

test("the password flow is offered", async () => {
    const { flows } = await createClient({ baseUrl: baseUrl() }).loginFlows();
    assert.ok(flows.some(({ type }) => type === "m.login.password"));
});

test("a wrong password is M_FORBIDDEN", async () => {
    const user = await registerUser();
    await assert.rejects(logIn(user, { password: "not the password" }), {
        httpStatus: 403,
        errcode: "M_FORBIDDEN",
    });
});

test("a name is taken once it is registered", async () => {
    const user = await registerUser();
    const client = createClient({ baseUrl: baseUrl() });
    assert.equal(await client.isUsernameAvailable(user), false);
    assert.equal(await client.isUsernameAvailable(`${user}-free`), true);
});

test("a client with a dead access token refreshes by itself", async () => {
    const login = await logIn(await registerUser(), { refresh_token: true });
    assert.ok(login.refresh_token, "the server gives refresh tokens");
    // An application that starts again with an access token which has died meanwhile.
    let refreshed = 0;
    const restarted = new Device(
        { ...login, access_token: "died-long-ago" },
        {
            refreshToken: login.refresh_token,
            tokenRefreshFunction: async (refreshToken) => {
                refreshed += 1;
                const next = await refresh(refreshToken);
                return { accessToken: next.access_token, refreshToken: next.refresh_token };
            },
        },
    );
    assert.equal((await restarted.client.whoami()).device_id, login.device_id);
    assert.equal(refreshed, 1);
});

test("a refresh keeps the entries of the device", async () => {
    const login = await logIn(await registerUser(), { refresh_token: true });
    const type = freshType();
    const before = new Device(login);
    await before.request("PUT", before.entryPath(type), content());
    const after = new Device({ ...login, ...(await refresh(login.refresh_token)) });
    assert.deepEqual(await after.request("GET", after.entryPath(type)), content());
    await after.request("PUT", after.entryPath(type), content({ still: "owner" }));
});

test("a second login with the same device ID keeps the entries of the device", async () => {
    const user = await registerUser();
    const login = await logIn(user);
    const type = freshType();
    const before = new Device(login);
    await before.request("PUT", before.entryPath(type), content());
    const after = new Device(await logIn(user, { device_id: login.device_id }));
    assert.deepEqual(await after.request("GET", after.entryPath(type)), content());
    await after.request("PUT", after.entryPath(type), content({ still: "owner" }));
});

standalone(
    "a second login with the same device ID ends the first one's token",
    "Synapse keeps it",
    async () => {
        const user = await registerUser();
        const login = await logIn(user);
        await logIn(user, { device_id: login.device_id });
        await assert.rejects(new Device(login).client.whoami(), { errcode: "M_UNKNOWN_TOKEN" });
    },
);

test("refreshToken works although its request carries the old access token", async () => {
    const login = await logIn(await registerUser(), { refresh_token: true });
    const { client } = new Device(login);
    const first = await client.refreshToken(login.refresh_token);
    client.setAccessToken(first.access_token);
    const second = await client.refreshToken(first.refresh_token);
    client.setAccessToken(second.access_token);
    assert.equal((await client.whoami()).device_id, login.device_id);
});

test("logout ends the token of one device", async (t) => {
    const [a, b] = await twoDevices(t);
    a.client.stopClient();
    await a.client.logout();
    await assert.rejects(a.client.whoami(), { httpStatus: 401, errcode: "M_UNKNOWN_TOKEN" });
    await b.client.whoami();
});

test("logout ends the entries of the device", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    await a.request("PUT", a.entryPath(type), content());
    await b.syncs.take("device entry", a.brings(type, content()));
    a.client.stopClient();
    await a.client.logout();
    await b.syncs.take("end of the entry", a.brings(type, {}));
    await assert.rejects(b.request("GET", a.entryPath(type)), {
        httpStatus: 404,
        errcode: "M_NOT_FOUND",
    });
});

function refresh(refreshToken) {
    return createClient({ baseUrl: baseUrl() }).refreshToken(refreshToken);
}
