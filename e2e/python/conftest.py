"""What every test is under: no answer of status 5xx may tell a content, a password or a token."""

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from support import told_secrets


@pytest.fixture(autouse=True)
def server_errors_tell_no_secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reads along below both SDKs, which send their requests through aiohttp."""
    findings: list[str] = []
    request = aiohttp.ClientSession._request

    async def watched(self: aiohttp.ClientSession, *args: Any, **options: Any) -> Any:
        response = await request(self, *args, **options)
        if response.status >= 500:
            # aiohttp keeps what it has read, so that the SDK can read it again.
            secrets = told_secrets(await response.text(errors="replace"))
            findings.extend(f"{response.status} tells `{secret}`" for secret in secrets)
        return response

    monkeypatch.setattr(aiohttp.ClientSession, "_request", watched)
    yield
    assert findings == []
