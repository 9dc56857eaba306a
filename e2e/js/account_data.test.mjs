// matrix-js-sdk's account data: global, room and device scope, seen by two running devices.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
    content,
    Device,
    freshType,
    logIn,
    registerUser,
    ROOM_ID,
    twoDevices,
    within,
} from "./support.mjs";

test("setAccountData gets its echo and reaches the other device", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    const body = content({ n: 1, nested: { list: [1.5, null, "ü"] } });
    await within("echo", a.client.setAccountData(type, body));
    assert.deepEqual(a.client.getAccountData(type).getContent(), body);
    assert.deepEqual(await b.sees(type), body);
    assert.deepEqual(await b.client.getAccountDataFromServer(type), body);

    const newer = content({ n: 2 });
    await within("echo", b.client.setAccountData(type, newer));
    await a.sees(type); // a's own
    assert.deepEqual(await a.sees(type), newer);
});

test("setAccountData with the value that is there resolves", async (t) => {
    const [a] = await twoDevices(t);
    const type = freshType();
    await within("echo", a.client.setAccountData(type, content()));
    await within("second call", a.client.setAccountData(type, content()));
});

test("a PUT of an equal value is echoed again", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    for (let round = 0; round < 2; round++) {
        await a.client.setAccountDataRaw(type, content({ same: true }));
        assert.deepEqual(await a.sees(type), content({ same: true }));
        assert.deepEqual(await b.sees(type), content({ same: true }));
    }
});

test("deleteAccountData gets its echo and empties the other device", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    await within("echo", a.client.setAccountData(type, content()));
    assert.deepEqual(await b.sees(type), content());
    await within("echo of the deletion", a.client.deleteAccountData(type));
    assert.equal(a.client.getAccountData(type), undefined);
    assert.deepEqual(await b.sees(type), {});
    assert.equal(b.client.getAccountData(type), undefined);
});

test("deleteAccountData of a type that never existed resolves", async (t) => {
    const [a] = await twoDevices(t);
    await within("echo", a.client.deleteAccountData(freshType()));
});

test("deleteAccountData twice resolves twice", async (t) => {
    const [a] = await twoDevices(t);
    const type = freshType();
    await within("echo", a.client.setAccountData(type, content()));
    await within("first deletion", a.client.deleteAccountData(type));
    await within("second deletion", a.client.deleteAccountData(type));
});

test("setIgnoredUsers is seen by the other device", async (t) => {
    const [a, b] = await twoDevices(t);
    await within("echo", a.client.setIgnoredUsers(["@spam:localhost"]));
    await b.sees("m.ignored_user_list");
    assert.deepEqual(b.client.getIgnoredUsers(), ["@spam:localhost"]);
});

test("getAccountDataFromServer before the start asks the server", async () => {
    const { client } = new Device(await logIn(await registerUser()));
    const type = freshType();
    assert.equal(await client.getAccountDataFromServer(type), null);
    await client.setAccountDataRaw(type, content());
    assert.deepEqual(await client.getAccountDataFromServer(type), content());
});

test("setRoomAccountData is apart from the global entry", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    const path = `/user/${encodeURIComponent(a.client.getUserId())}`;
    const roomPath = `${path}/rooms/${encodeURIComponent(ROOM_ID)}`;
    const entry = `/account_data/${encodeURIComponent(type)}`;
    await within("echo", a.client.setAccountData(type, content({ scope: "global" })));
    await a.client.setRoomAccountData(ROOM_ID, type, content({ scope: "room" }));
    assert.deepEqual(await b.request("GET", roomPath + entry), content({ scope: "room" }));
    assert.deepEqual(await b.request("GET", path + entry), content({ scope: "global" }));
    await a.client.setRoomAccountData(ROOM_ID, type, {});
    assert.deepEqual(await b.request("GET", roomPath + entry), {});
});

test("a device entry is written by its device alone", async (t) => {
    const [a, b] = await twoDevices(t);
    const path = a.entryPath(freshType());
    assert.deepEqual(await a.request("PUT", path, content({ rooms: ["11", "12"] })), {});
    assert.deepEqual(await b.request("GET", path), content({ rooms: ["11", "12"] }));
    await assert.rejects(b.request("PUT", path, content({ stolen: true })), {
        httpStatus: 403,
        errcode: "M_FORBIDDEN",
    });
    assert.deepEqual(await a.request("GET", path), content({ rooms: ["11", "12"] }));
});

test("a device entry reaches the running sync of both devices", async (t) => {
    const [a, b] = await twoDevices(t);
    const type = freshType();
    await a.request("PUT", a.entryPath(type), content({ seen: true }));
    await b.syncs.take("device entry", a.brings(type, content({ seen: true })));
    await a.syncs.take("own device entry", a.brings(type, content({ seen: true })));
});

test("push rules are there after the start and by request", async (t) => {
    const [a] = await twoDevices(t);
    const synced = a.client.getAccountData("m.push_rules").getContent();
    assert.ok(synced.global.override.some((rule) => rule.rule_id === ".m.rule.master"));
    const asked = await a.client.getPushRules();
    assert.ok(asked.global.underride.some((rule) => rule.rule_id === ".m.rule.message"));
    assert.equal(a.client.pushProcessor.getPushRuleById(".m.rule.master").enabled, false);
});

test("push rules are not writable as account data", async (t) => {
    const [a] = await twoDevices(t);
    await assert.rejects(a.client.setAccountDataRaw("m.push_rules", { global: {} }), {
        httpStatus: 405,
        errcode: "M_BAD_JSON",
    });
});
