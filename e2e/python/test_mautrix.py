"""mautrix-python against a running Kitbag: its client, its syncer, its account-data calls.

mautrix has no call that registers a plain user; registration goes through its raw HTTP layer, as do
the MSC4331 requests.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from mautrix.api import Method, Path
from mautrix.client import Client, InternalEventType
from mautrix.client.syncer import SyncStream
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound, MUnknownToken
from mautrix.types import (
    Event,
    EventFilter,
    EventType,
    Filter,
    LoginType,
    MatrixUserIdentifier,
    RoomID,
    UserID,
)

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

ROOM = RoomID(ROOM_ID)


@dataclass
class Device:
    """One logged-in mautrix client and what its syncer has seen."""

    client: Client
    events: Inbox = field(init=False)
    syncs: Inbox = field(init=False)
    stopped: Inbox = field(init=False)

    def __post_init__(self) -> None:
        name = f"mautrix {self.client.device_id}"
        self.events, self.syncs, self.stopped = Inbox(name), Inbox(name), Inbox(name)
        # By its stream: mautrix gives types that it does not know to handlers of ALL only.
        self.client.add_event_handler(
            EventType.ALL, self._on_event, sync_stream=SyncStream.ACCOUNT_DATA
        )
        self.client.add_event_handler(InternalEventType.SYNC_SUCCESSFUL, self._on_sync)
        self.client.add_event_handler(InternalEventType.SYNC_STOPPED, self.stopped.put)

    async def _on_event(self, event: Event) -> None:
        raw = event.content
        await self.events.put((str(event.type), raw.serialize()))

    async def _on_sync(self, event: dict[str, Any]) -> None:
        await self.syncs.put(event["data"])

    async def start(self, filter_data: Filter | None = None) -> None:
        """Starts the syncer and waits for the initial answer."""
        self.client.start(filter_data)
        await self.syncs.take("initial sync", lambda _: True)

    async def sees(self, data_type: str) -> dict[str, Any]:
        """Waits until the syncer dispatches an entry of this type, and returns its content."""
        _, body = await self.events.take(data_type, lambda event: event[0] == data_type)
        return body

    async def request(self, method: Method, path: str, body: Any = None) -> Any:
        """Sends a raw request through mautrix; an error answer is its exception."""
        return await self.client.api.request(method, path, body)


@asynccontextmanager
async def logged_in(user: str) -> AsyncIterator[Device]:
    """Logs a new device in, and stops it when the test is over."""
    client = Client(base_url=base_url(), default_retry_count=0)
    try:
        await client.login(MatrixUserIdentifier(user), password=PASSWORD, device_name="e2e")
        yield Device(client)
    finally:
        client.stop()
        await client.api.session.close()


@pytest_asyncio.fixture
async def user() -> str:
    """Registers a user through mautrix's HTTP layer and returns its localpart."""
    name = fresh_user()
    client = Client(base_url=base_url(), default_retry_count=0)
    try:
        request = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        response = await client.api.request(Method.POST, Path.v3.register, request)
        assert response["user_id"].startswith(f"@{name}:")
    finally:
        await client.api.session.close()
    return name


@pytest_asyncio.fixture
async def devices(user: str) -> AsyncIterator[tuple[Device, Device]]:
    """Logs two devices of one user in and starts the syncer of both."""
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
        assert (who.user_id, who.device_id) == (device.client.mxid, device.client.device_id)
    assert a.client.mxid == b.client.mxid
    assert a.client.device_id != b.client.device_id


async def test_flows_and_versions_are_parsed() -> None:
    client = Client(base_url=base_url(), default_retry_count=0)
    try:
        flows = await client.get_login_flows()
        assert flows.supports_type(LoginType.PASSWORD)
        assert (await client.versions()).versions
    finally:
        await client.api.session.close()


async def test_wrong_password_is_mforbidden(user: str) -> None:
    client = Client(base_url=base_url(), default_retry_count=0)
    try:
        with pytest.raises(MForbidden):
            await client.login(MatrixUserIdentifier(user), password="not the password")
    finally:
        await client.api.session.close()


async def test_global_entry_reaches_both_devices(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    body = content(n=1, nested={"list": [1.5, None, "ü"]})
    await a.client.set_account_data(data_type, body)
    assert await b.sees(data_type) == body
    assert await a.sees(data_type) == body
    assert await b.client.get_account_data(data_type) == body
    newer = content(n=2)
    await b.client.set_account_data(data_type, newer)
    assert await a.sees(data_type) == newer


async def test_entry_never_written_is_mnotfound(devices: tuple[Device, Device]) -> None:
    with pytest.raises(MNotFound):
        await devices[0].client.get_account_data(fresh_type())


async def test_put_of_an_equal_value_is_echoed(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    for _ in range(2):
        await a.client.set_account_data(data_type, content(same=True))
        assert await a.sees(data_type) == content(same=True)
        assert await b.sees(data_type) == content(same=True)


async def test_put_of_empty_content_is_echoed(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.client.set_account_data(data_type, content())
    assert await b.sees(data_type) == content()
    await a.client.set_account_data(data_type, {})
    assert await b.sees(data_type) == {}
    assert await b.client.get_account_data(data_type) == {}


async def test_put_of_empty_content_for_a_new_type_is_echoed(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.client.set_account_data(data_type, {})
    assert await a.sees(data_type) == {}
    assert await b.sees(data_type) == {}


async def test_filter_uploaded_at_start_bounds_what_the_syncer_brings(user: str) -> None:
    async with logged_in(user) as device:
        wanted, unwanted = fresh_type(), fresh_type()
        bounds = EventFilter(not_types=[EventType.find(unwanted), EventType.find("m.push_rules")])
        await device.start(Filter(account_data=bounds))
        await device.client.set_account_data(unwanted, content())
        await device.client.set_account_data(wanted, content())
        first, _ = await device.events.take("entry", lambda _: True)
        assert first == wanted


async def test_room_entry_is_apart_from_the_global_one(devices: tuple[Device, Device]) -> None:
    a, b = devices
    data_type = fresh_type()
    await a.client.set_account_data(data_type, content(scope="global"))
    await a.client.set_account_data(data_type, content(scope="room"), ROOM)
    assert await b.client.get_account_data(data_type, ROOM) == content(scope="room")
    assert await b.client.get_account_data(data_type) == content(scope="global")
    await a.client.set_account_data(data_type, {}, ROOM)
    assert await b.client.get_account_data(data_type, ROOM) == {}


async def test_device_entry_is_written_by_its_device_alone(devices: tuple[Device, Device]) -> None:
    a, b = devices
    path = device_data_path(a.client.mxid, a.client.device_id, fresh_type())
    assert await a.request(Method.PUT, path, content(n=1)) == {}
    assert await b.request(Method.GET, path) == content(n=1)
    with pytest.raises(MForbidden):
        await b.request(Method.PUT, path, content(stolen=True))
    assert await a.request(Method.GET, path) == content(n=1)


async def test_device_entry_reaches_the_sync_of_both_devices(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    data_type = fresh_type()
    path = device_data_path(a.client.mxid, a.client.device_id, data_type)
    expected = {"type": data_type, "content": content(seen=True)}
    assert await a.request(Method.PUT, path, content(seen=True)) == {}
    await b.syncs.take("device entry", brings(a, expected))
    await a.syncs.take("own device entry", brings(a, expected))


async def test_push_rules_arrive_by_sync_and_are_readable(
    devices: tuple[Device, Device],
) -> None:
    a, _ = devices
    synced = await a.sees("m.push_rules")
    assert ".m.rule.master" in {rule["rule_id"] for rule in synced["global"]["override"]}
    assert await a.client.get_account_data("m.push_rules") == synced


async def test_push_rules_are_not_writable_as_account_data(
    devices: tuple[Device, Device],
) -> None:
    with pytest.raises(MatrixRequestError) as refused:
        await devices[0].client.set_account_data("m.push_rules", {"global": {}})
    assert (refused.value.http_status, refused.value.errcode) == (405, "M_BAD_JSON")


async def test_another_users_entries_are_closed(devices: tuple[Device, Device]) -> None:
    a, _ = devices
    own = a.client.mxid
    other = UserID(own.replace("@e2e-", "@e2e-other-"))
    with pytest.raises(MForbidden):
        await a.client.api.request(Method.GET, Path.v3.user[other].account_data[fresh_type()])


async def test_logout_ends_the_token_and_the_running_syncer(
    devices: tuple[Device, Device],
) -> None:
    a, b = devices
    await a.client.logout(clear_access_token=False)
    with pytest.raises(MUnknownToken):
        await a.client.whoami()
    await b.client.set_account_data(fresh_type(), content())
    await b.client.whoami()
    stop = await a.stopped.take("end of the syncer", lambda _: True)
    assert isinstance(stop["error"], MUnknownToken)


def brings(owner: Device, event: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Makes a test for a /sync answer that has this entry of the owner's device."""
    return lambda sync: event in device_events(sync, owner.client.device_id)
