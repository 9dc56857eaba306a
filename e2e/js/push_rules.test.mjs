// matrix-js-sdk's push rules: edited on one device, seen on the other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MatrixEvent, PushRuleKind } from "matrix-js-sdk";
import { ROOM_ID, standalone, twoDevices } from "./support.mjs";

// With the characters that a client must escape.
const RULE_ID = "e2e ü%";
const HIGHLIGHT = { set_tweak: "highlight" };

test("a rule of each kind reaches the other device as it was added", async (t) => {
    const [a, b] = await twoDevices(t);
    const conditions = [{ kind: "event_match", key: "content.msgtype", pattern: "m.e2e" }];
    const rules = {
        override: [RULE_ID, { actions: ["notify"], conditions }],
        content: [RULE_ID, { actions: ["notify", HIGHLIGHT], pattern: "kitb?g" }],
        room: [ROOM_ID, { actions: [] }],
        sender: ["@e2e-friend:localhost", { actions: ["notify"] }],
        underride: [RULE_ID, { actions: ["dont_notify"], conditions }],
    };
    for (const [kind, [id, body]] of Object.entries(rules)) {
        await a.client.addPushRule("global", kind, id, body);
        const seen = await rulesOf(b, kind, (list) => list.some(({ rule_id }) => rule_id === id));
        const [rule] = seen.filter(({ rule_id }) => rule_id === id);
        assert.deepEqual(rule, { ...body, rule_id: id, default: false, enabled: true });
    }
    await rulesOf(a, "underride", (list) => list[0].rule_id === RULE_ID);
    assert.deepEqual(a.client.pushRules, b.client.pushRules);
    const synced = a.client.pushRules;
    assert.deepEqual(await a.client.getPushRules(), synced);
});

test("a room that is muted on one device is unmuted on the other", async (t) => {
    const [a, b] = await twoDevices(t);
    await a.client.setRoomMutePushRule("global", ROOM_ID, true);
    await rulesOf(b, "room", (list) => list.length === 1);
    assert.deepEqual(b.client.getRoomPushRule("global", ROOM_ID).actions, ["dont_notify"]);
    await b.client.setRoomMutePushRule("global", ROOM_ID, false);
    await rulesOf(a, "room", (list) => list.length === 1);
    await rulesOf(a, "room", (list) => list.length === 0);
    assert.equal(a.client.getRoomPushRule("global", ROOM_ID), undefined);
});

test("a default rule is switched and changed for the other device", async (t) => {
    const [a, b] = await twoDevices(t);
    const id = ".m.rule.message";
    const rule = (list) => list.find(({ rule_id }) => rule_id === id);
    const kind = PushRuleKind.Underride;
    const actions = ["notify", HIGHLIGHT];
    const isChanged = (list) => JSON.stringify(rule(list).actions) === JSON.stringify(actions);
    await a.client.setPushRuleEnabled("global", kind, id, false);
    await rulesOf(b, kind, (list) => !rule(list).enabled);
    await a.client.setPushRuleActions("global", kind, id, actions);
    await rulesOf(b, kind, isChanged);
    await b.client.setPushRuleEnabled("global", kind, id, true);
    await rulesOf(a, kind, (list) => rule(list).enabled && isChanged(list));
    assert.deepEqual(a.client.pushProcessor.getPushRuleById(id).actions, actions);
});

test("a rule that was deleted and added again is enabled", async (t) => {
    const [a, b] = await twoDevices(t);
    const add = () =>
        a.client.addPushRule("global", PushRuleKind.ContentSpecific, RULE_ID, {
            actions: ["notify"],
            pattern: "kitbag",
        });
    await add();
    await a.client.setPushRuleEnabled("global", PushRuleKind.ContentSpecific, RULE_ID, false);
    await rulesOf(b, "content", (list) => own(list)[0]?.enabled === false);
    await b.client.deletePushRule("global", PushRuleKind.ContentSpecific, RULE_ID);
    await rulesOf(a, "content", (list) => own(list)[0]?.enabled === false);
    await rulesOf(a, "content", (list) => own(list).length === 0);
    await add();
    await rulesOf(b, "content", (list) => own(list)[0]?.enabled === true);
});

test("rules that two devices add at once are all there", async (t) => {
    const devices = await twoDevices(t);
    const ids = devices.map((_, at) => Array.from({ length: 10 }, (_, n) => `own-${at}-${n}`));
    await Promise.all(
        devices.flatMap(({ client }, at) =>
            ids[at].map((id) =>
                client.addPushRule("global", PushRuleKind.ContentSpecific, id, {
                    actions: ["notify"],
                    pattern: id,
                }),
            ),
        ),
    );
    for (const device of devices) {
        const list = await rulesOf(device, "content", (list) => own(list).length === 20);
        assert.deepEqual(own(list).map(({ rule_id }) => rule_id).sort(), ids.flat().sort());
    }
});

test("the SDK notifies by a rule of the other device", async (t) => {
    const [a, b] = await twoDevices(t);
    const event = message();
    assert.ok(!b.client.pushProcessor.actionsForEvent(event).notify);
    await a.client.addPushRule("global", PushRuleKind.ContentSpecific, RULE_ID, {
        actions: ["notify", HIGHLIGHT],
        pattern: "kitbag",
    });
    await rulesOf(b, "content", (list) => own(list).length === 1);
    const actions = b.client.pushProcessor.actionsForEvent(event);
    assert.equal(actions.notify, true);
    assert.equal(actions.tweaks.highlight, true);
});

standalone(
    "the server explains what the SDK did with an event",
    "an endpoint of Kitbag's own",
    async (t) => {
        const [a] = await twoDevices(t);
        await a.client.addPushRule("global", PushRuleKind.ContentSpecific, RULE_ID, {
            actions: ["notify", HIGHLIGHT],
            pattern: "kitbag",
        });
        await rulesOf(a, "content", (list) => own(list).length === 1);
        const event = message();
        assert.equal(a.client.pushProcessor.actionsForEvent(event).notify, true);
        const told = await a.client.http.authedRequest(
            "POST",
            "/pushrules/explain",
            undefined,
            { event: event.event },
            { prefix: "/_kitbag/client/v1" },
        );
        assert.deepEqual(told.decided_by, { kind: "content", rule_id: RULE_ID });
        assert.equal(told.notifies, true);
    },
);

test("a rule in a default's name is refused", async (t) => {
    const [a] = await twoDevices(t);
    const body = { actions: ["notify"], pattern: "kitbag" };
    await assert.rejects(
        a.client.addPushRule("global", PushRuleKind.ContentSpecific, ".m.rule.own", body),
        { httpStatus: 400 },
    );
});

/** A message from somebody else. */
function message() {
    return new MatrixEvent({
        type: "org.example.e2e",
        event_id: "$e2e",
        sender: "@e2e-friend:localhost",
        room_id: ROOM_ID,
        content: { body: "Do you know Kitbag?" },
    });
}

/** Those of a list that the user made. */
function own(list) {
    return list.filter((rule) => !rule.default);
}

/** Waits until a sync brings the device rules of which those of this kind match. */
async function rulesOf(device, kind, matches) {
    // One after the other: those of the initial sync may match what is waited for, too.
    for (;;) {
        const event = await device.events.take(`${kind} rules`, ({ type }) => type === "m.push_rules");
        const rules = event.content.global[kind];
        if (matches(rules)) return rules;
    }
}
