"""What the flows of every SDK share: where the server is, fresh names, and waiting for events."""

import asyncio
import os
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

# Far over what a server on loopback needs, so that only a lost wake-up or a lost echo runs into it.
DEADLINE_S = 20

# In contents and passwords, neither of which may reach the server's log or a body of status 5xx.
CANARY = os.environ.get("KITBAG_TEST_CANARY", "canary-content-unset")

PASSWORD = f"correct horse battery staple {CANARY}"

# Any room ID that is valid may carry account data: the server need not know the room.
ROOM_ID = "!e2e:localhost"

DEVICE_DATA_SYNC_KEY = "org.matrix.msc4331.device_account_data"

# Whether the server is a gateway before another homeserver, which tells device account data as global
# account data: the type names the device, and this content stands for none.
BEHIND_GATEWAY = "KITBAG_TEST_GATEWAY" in os.environ
DELETED = {"org.matrix.msc4331.deleted": True}
# What every access token and every refresh token begins with, those of Synapse too.
TOKEN_PREFIXES = ("kt_", "ktr_", "syt_", "syr_")


def base_url() -> str:
    """Returns the address of the server under test."""
    url = os.environ.get("KITBAG_TEST_URL")
    if not url:
        raise RuntimeError("KITBAG_TEST_URL is not set: run `cargo xtask e2e python`")
    return url.rstrip("/")


def content(**fields: Any) -> dict[str, Any]:
    """Makes a content that carries the canary, which must never reach the server's log."""
    return {"canary": CANARY, **fields}


def told_secrets(body: str) -> list[str]:
    """Returns what a body tells of contents, passwords and tokens."""
    return [secret for secret in (CANARY, *TOKEN_PREFIXES) if secret in body]


def fresh_user() -> str:
    """Makes a localpart that no earlier test has registered."""
    return f"e2e-{secrets.token_hex(8)}"


def fresh_type() -> str:
    """Makes a type that was never stored, with the characters that a client must escape."""
    return f"com.example.e2e/{secrets.token_hex(4)} ü%"


def device_data_path(user_id: str, device_id: str, data_type: str) -> str:
    """Builds the MSC4331 path of one entry of a device."""
    user, device, escaped = (quote(part, safe="") for part in (user_id, device_id, data_type))
    return f"/_matrix/client/v3/user/{user}/devices/{device}/net.zemos.account_data/{escaped}"


def device_events(sync: dict[str, Any], device_id: str) -> list[dict[str, Any]]:
    """Returns the entries of one device in a /sync answer."""
    if not BEHIND_GATEWAY:
        return sync.get(DEVICE_DATA_SYNC_KEY, {}).get(device_id, {}).get("events", [])
    prefix = f"{DEVICE_DATA_SYNC_KEY}.{device_id}."
    return [
        {
            "type": event["type"].removeprefix(prefix),
            "content": {} if event["content"] == DELETED else event["content"],
        }
        for event in sync.get("account_data", {}).get("events", [])
        if event["type"].startswith(prefix)
    ]


class Inbox:
    """Keeps what a running sync delivers until a test takes it."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._items: list[Any] = []
        self._arrival = asyncio.Condition()

    async def put(self, item: Any) -> None:
        """Adds an item and wakes whoever waits."""
        async with self._arrival:
            self._items.append(item)
            self._arrival.notify_all()

    async def take(self, what: str, matches: Callable[[Any], bool]) -> Any:
        """Waits for an item that matches, and removes it: the next call wants a newer one."""
        try:
            async with asyncio.timeout(DEADLINE_S), self._arrival:
                while True:
                    for index, item in enumerate(self._items):
                        if matches(item):
                            return self._items.pop(index)
                    await self._arrival.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self._owner}: no {what} within {DEADLINE_S} s"
            ) from None
