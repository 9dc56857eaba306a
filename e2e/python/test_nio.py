"""matrix-nio against a running Kitbag.

nio has no call that writes account data, so writes go through its raw `AsyncClient.send`; all else
(register, login, the sync loop, callbacks, reading `m.direct`, log-out) are its own calls.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import nio
import pytest_asyncio

from support import (
    PASSWORD,
    ROOM_ID,
    Inbox,
    base_url,
    content,
    device_data_path,
    device_events,
    fresh_type,
    fresh_user,
)


# Without bounds nio repeats a refused or unanswered request for ever, and a test with it.
ONE_TRY = nio.AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0)


# With the characters that a client must escape.
RULE_ID = "e2e ü%"


@dataclass
class Device:
    """One logged-in nio client and what its sync loop has seen."""

    client: nio.AsyncClient
    events: Inbox = field(init=False)
    syncs: Inbox = field(init=False)
    loop: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        name = f"nio {self.client.device_id}"
        self.events = Inbox(name)
        self.syncs = Inbox(name)
        self.client.add_global_account_data_callback(self.events.put, nio.AccountDataEvent)
        self.client.add_response_callback(self._on_sync, nio.SyncResponse)

    async def _on_sync(self, response: nio.SyncResponse) -> None:
        await self.syncs.put(await response.transport_response.json())

    async def start(self) -> None:
        """Starts the sync loop and waits for the initial answer."""
        self.loop = asyncio.create_task(self.client.sync_forever(timeout=30_000))
        await self.syncs.take("initial sync", lambda _: True)

    async def stop(self) -> None:
        """Ends the sync loop at once, also in the middle of a long poll."""
        if self.loop is not None:
            self.loop.cancel()
            await asyncio.gather(self.loop, return_exceptions=True)
            self.loop = None

    def path(self, data_type: str, room_id: str | None = None) -> str:
        """Builds the path of a global entry, or of one in a room."""
        room = f"/rooms/{quote(room_id, safe='')}" if room_id else ""
        user = quote(self.client.user_id, safe="")
        return f"/_matrix/client/v3/user/{user}{room}/account_data/{quote(data_type, safe='')}"

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Sends a raw request through nio and returns status and body."""
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        data = None if body is None else json.dumps(body)
        response = await self.client.send(method, path, data, headers)
        return response.status, await response.json()

    async def put(self, data_type: str, body: Any, room_id: str | None = None) -> None:
        """Writes an entry, which must succeed."""
        assert await self.send("PUT", self.path(data_type, room_id), body) == (200, {})

    async def add_rule(self, kind: str, rule_id: str, **fields: Any) -> None:
        """Adds a push rule by nio's own call, which must succeed."""
        done = await self.client.set_pushrule("global", nio.PushRuleKind[kind], rule_id, **fields)
        assert isinstance(done, nio.SetPushRuleResponse), done

    async def sees_rules(
        self, kind: str, matches: Callable[[list[nio.PushRule]], bool]
    ) -> list[nio.PushRule]:
        """Waits until a sync brings rules of which those of this kind match, and returns them."""
        # One after the other: those of the initial sync may match what is waited for, too.
        while True:
            event = await self.events.take(
                f"{kind} rules", lambda e: isinstance(e, nio.PushRulesEvent)
            )
            rules = getattr(event.global_rules, kind)
            if matches(rules):
                return rules

    async def sees(self, data_type: str) -> dict[str, Any]:
        """Waits until the sync loop brings an entry of this type, and returns its content."""
        event = await self.events.take(data_type, lambda e: getattr(e, "type", None) == data_type)
        return event.content


@asynccontextmanager
async def logged_in(user: str, **options: Any) -> AsyncIterator[Device]:
    """Logs a new device in, and stops it when the test is over."""
    client = nio.AsyncClient(base_url(), user, config=ONE_TRY, **options)
    try:
        response = await client.login(PASSWORD, device_name="e2e")
        assert isinstance(response, nio.LoginResponse), response
        device = Device(client)
        try:
            yield device
        finally:
            await device.stop()
    finally:
        await client.close()


@pytest_asyncio.fixture
async def user() -> str:
    """Registers a user through nio and returns its localpart."""
    name = fresh_user()
    client = nio.AsyncClient(base_url(), name, config=ONE_TRY)
    try:
        response = await client.register(name, PASSWORD)
        assert isinstance(response, nio.RegisterResponse), response
        assert response.user_id.startswith(f"@{name}:")
    finally:
        await client.close()
    return name


@pytest_asyncio.fixture
async def devices(user: str) -> AsyncIterator[tuple[Device, Device]]:
    """Logs two devices of one user in and starts the sync loop of both."""
    async with AsyncExitStack() as stack:
        pair = (
            await stack.enter_async_context(logged_in(user)),
            await stack.enter_async_context(logged_in(user)),
        )
        for device in pair:
            await device.start()
        yield pair


async def test_login_gives_each_device_its_own_identity(devices: tuple[Device, Device]) -> None:
    a, b = devices
    for device in devices:
        who = await device.client.whoami()
        assert isinstance(who, nio.WhoamiResponse), who
        assert (who.user_id, who.device_id) == (device.client.user_id, device.client.device_id)
    assert a.client.user_id == b.client.user_id
    assert a.client.device_id != b.client.device_id
    listed = await a.client.devices()
    assert isinstance(listed, nio.DevicesResponse), listed
    assert {a.client.device_id, b.client.device_id} <= {device.id for device in listed.devices}


async def test_login_keeps_the_asked_device_id(user: str) -> None:
    async with logged_in(user, device_id="E2EDEVICE") as device:
        assert device.client.device_id == "E2EDEVICE"


async def test_wrong_password_is_an_error_of_nio(user: str) -> None:
    client = nio.AsyncClient(base_url(), user, config=ONE_TRY)
    try:
        response = await client.login("not the password")
        assert isinstance(response, nio.LoginError), response
        assert response.status_code == "M_FORBIDDEN"
    finally:
        await client.close()


async def test_global_entry_reaches_both_devices(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    body = content(n=1, nested={"list": [1.5, None, "ü"]})
    await a.put(data_type, body)
    assert await b.sees(data_type) == body
    assert await a.sees(data_type) == body
    assert await b.send("GET", b.path(data_type)) == (200, body)
    newer = content(n=2)
    await b.put(data_type, newer)
    assert await a.sees(data_type) == newer


async def test_put_of_an_equal_value_is_echoed(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    for _ in range(2):
        await a.put(data_type, content(same=True))
        assert await a.sees(data_type) == content(same=True)
        assert await b.sees(data_type) == content(same=True)


async def test_put_of_empty_content_is_echoed(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.put(data_type, content())
    assert await b.sees(data_type) == content()
    await a.put(data_type, {})
    assert await b.sees(data_type) == {}
    assert await b.send("GET", b.path(data_type)) == (200, {})


async def test_put_of_empty_content_for_a_new_type_is_echoed(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.put(data_type, {})
    assert await a.sees(data_type) == {}
    assert await b.sees(data_type) == {}


async def test_initial_sync_of_a_new_device_brings_the_entries(
    user: str, devices: tuple[Device, Device]
) -> None:
    data_type = fresh_type()
    await devices[0].put(data_type, content(old=True))
    async with logged_in(user) as late:
        await late.start()
        assert await late.sees(data_type) == content(old=True)


async def test_direct_chats_are_read_by_the_call_of_nio(devices: tuple[Device, Device]) -> None:
    a, b = devices
    missing = await b.client.list_direct_rooms()
    assert isinstance(missing, nio.DirectRoomsErrorResponse), missing
    assert missing.status_code == "M_NOT_FOUND"
    direct = {"@friend:localhost": [ROOM_ID]}
    await a.put("m.direct", direct)
    assert await b.sees("m.direct") == direct
    response = await b.client.list_direct_rooms()
    assert isinstance(response, nio.DirectRoomsResponse), response
    assert response.rooms == direct


async def test_room_entry_is_apart_from_the_global_one(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.put(data_type, content(scope="global"))
    await a.put(data_type, content(scope="room"), ROOM_ID)
    assert await b.send("GET", b.path(data_type, ROOM_ID)) == (200, content(scope="room"))
    assert await b.send("GET", b.path(data_type)) == (200, content(scope="global"))
    await a.put(data_type, {}, ROOM_ID)
    assert await b.send("GET", b.path(data_type, ROOM_ID)) == (200, {})


async def test_device_entry_is_written_by_its_device_alone(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    path = device_data_path(a.client.user_id, a.client.device_id, data_type)
    assert await a.send("PUT", path, content(rooms=["11", "12"])) == (200, {})
    assert await b.send("GET", path) == (200, content(rooms=["11", "12"]))
    status, error = await b.send("PUT", path, content(stolen=True))
    assert (status, error["errcode"]) == (403, "M_FORBIDDEN")
    assert await a.send("GET", path) == (200, content(rooms=["11", "12"]))


async def test_device_entry_reaches_the_sync_of_both_devices(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    data_type = fresh_type()
    path = device_data_path(a.client.user_id, a.client.device_id, data_type)
    expected = {"type": data_type, "content": content(seen=True)}
    assert await a.send("PUT", path, content(seen=True)) == (200, {})
    await b.syncs.take("device entry", brings(a, expected))
    await a.syncs.take("own device entry", brings(a, expected))


async def test_logout_ends_the_token(devices: tuple[Device, Device]) -> None:
    a, b = devices
    await a.stop()  # nio's loop repeats a sync with a dead token for ever
    token = a.client.access_token
    response = await a.client.logout()
    assert isinstance(response, nio.LogoutResponse), response
    a.client.access_token = token
    who = await a.client.whoami()
    assert isinstance(who, nio.WhoamiError), who
    assert who.status_code == "M_UNKNOWN_TOKEN"
    assert isinstance(await b.client.whoami(), nio.WhoamiResponse)


async def test_logout_ends_the_entries_of_the_device(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    path = device_data_path(a.client.user_id, a.client.device_id, data_type)
    assert await a.send("PUT", path, content()) == (200, {})
    await b.syncs.take("entry", brings(a, {"type": data_type, "content": content()}))
    await a.stop()
    response = await a.client.logout()
    assert isinstance(response, nio.LogoutResponse), response
    await b.syncs.take("end of the entry", brings(a, {"type": data_type, "content": {}}))
    status, error = await b.send("GET", path)
    assert (status, error["errcode"]) == (404, "M_NOT_FOUND")


async def test_push_rules_arrive_by_sync_and_are_parsed(devices: tuple[Device, Device]) -> None:
    a, _ = devices
    rules = await a.events.take("push rules", lambda e: isinstance(e, nio.PushRulesEvent))
    assert ".m.rule.master" in {rule.id for rule in rules.global_rules.override}
    assert ".m.rule.message" in {rule.id for rule in rules.global_rules.underride}
    status, stored = await a.send("GET", a.path("m.push_rules"))
    assert status == 200
    assert {"override", "content", "room", "sender", "underride"} <= set(stored["global"])


async def test_push_rules_are_not_writable_as_account_data(
    devices: tuple[Device, Device],
) -> None:
    a, _ = devices
    status, error = await a.send("PUT", a.path("m.push_rules"), {"global": {}})
    assert (status, error["errcode"]) == (405, "M_BAD_JSON")


async def test_push_rule_of_each_kind_reaches_the_other_device(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    matches = nio.PushEventMatch("content.msgtype", "m.e2e")
    highlight = [nio.PushNotify(), nio.PushSetTweak("highlight", True)]
    rules: list[tuple[str, str, dict[str, Any]]] = [
        ("override", RULE_ID, {"actions": [nio.PushNotify()], "conditions": [matches]}),
        ("content", RULE_ID, {"actions": highlight, "pattern": "kitb?g"}),
        ("room", ROOM_ID, {"actions": []}),
        ("sender", "@e2e-friend:localhost", {"actions": [nio.PushNotify()]}),
        ("underride", RULE_ID, {"actions": [nio.PushDontNotify()], "conditions": [matches]}),
    ]
    for name, rule_id, fields in rules:
        await a.add_rule(name, rule_id, **fields)
        seen = await b.sees_rules(name, lambda rules, id=rule_id: id in ids(rules))
        rule = next(rule for rule in seen if rule.id == rule_id)
        assert (rule.default, rule.enabled) == (False, True)
        assert {"actions": rule.actions, "conditions": rule.conditions} == {
            "actions": fields["actions"],
            "conditions": fields.get("conditions", []),
        }
        assert rule.pattern == fields.get("pattern", "")


async def test_push_rules_stand_where_they_were_put(devices: tuple[Device, Device]) -> None:
    a, b = devices
    for name, place in [
        ("first", {}),
        ("newer", {}),
        ("between", {"before": "first"}),
        ("last", {"after": "first"}),
    ]:
        await a.add_rule("content", name, actions=[], pattern=name, **place)
    seen = await b.sees_rules("content", lambda rules: len(ids(rules)) == 4)
    assert ids(seen) == ["newer", "between", "first", "last"]


async def test_default_push_rule_is_changed_for_the_other_device(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    kind, rule_id = nio.PushRuleKind.underride, ".m.rule.message"
    done = await a.client.enable_pushrule("global", kind, rule_id, False)
    assert isinstance(done, nio.EnablePushRuleResponse), done
    await b.sees_rules("underride", lambda rules: not one(rules, rule_id).enabled)
    done = await b.client.set_pushrule_actions("global", kind, rule_id, [nio.PushDontNotify()])
    assert isinstance(done, nio.SetPushRuleActionsResponse), done
    seen = await a.sees_rules(
        "underride", lambda rules: one(rules, rule_id).actions == [nio.PushDontNotify()]
    )
    assert not one(seen, rule_id).enabled


async def test_push_rule_that_is_deleted_goes_from_the_other_device(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    await a.add_rule("content", RULE_ID, actions=[], pattern="kitbag")
    await b.sees_rules("content", lambda rules: ids(rules) == [RULE_ID])
    kind = nio.PushRuleKind.content
    done = await b.client.delete_pushrule("global", kind, RULE_ID)
    assert isinstance(done, nio.DeletePushRuleResponse), done
    await a.sees_rules("content", lambda rules: ids(rules) == [RULE_ID])
    await a.sees_rules("content", lambda rules: ids(rules) == [])
    done = await a.client.delete_pushrule("global", kind, RULE_ID)
    assert isinstance(done, nio.DeletePushRuleError), done
    assert done.status_code == "M_NOT_FOUND"


async def test_push_rules_that_two_devices_add_at_once_are_all_there(
    devices: tuple[Device, Device],
) -> None:
    names = {(at, f"own-{at}-{n}") for at in range(2) for n in range(10)}
    await asyncio.gather(
        *(
            devices[at].add_rule("content", name, actions=[], pattern=name)
            for at, name in names
        )
    )
    for device in devices:
        seen = await device.sees_rules("content", lambda rules: len(ids(rules)) == len(names))
        assert set(ids(seen)) == {name for _, name in names}


async def test_uploaded_filter_bounds_what_a_sync_brings(user: str) -> None:
    async with logged_in(user) as device:
        wanted, unwanted = fresh_type(), fresh_type()
        await device.put(unwanted, content())
        await device.put(wanted, content())
        uploaded = await device.client.upload_filter(account_data={"types": [wanted]})
        assert isinstance(uploaded, nio.UploadFilterResponse), uploaded
        response = await device.client.sync(sync_filter=uploaded.filter_id)
        assert isinstance(response, nio.SyncResponse), response
        assert [event.type for event in response.account_data_events] == [wanted]


def brings(owner: Device, event: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Makes a test for a /sync answer that has this entry of the owner's device."""
    return lambda sync: event in device_events(sync, owner.client.device_id)


def ids(rules: list[nio.PushRule]) -> list[str]:
    """Returns the IDs of the user's own push rules, in their order."""
    return [rule.id for rule in rules if not rule.default]


def one(rules: list[nio.PushRule], rule_id: str) -> nio.PushRule:
    """Returns the push rule of this ID."""
    return next(rule for rule in rules if rule.id == rule_id)
