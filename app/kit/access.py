"""How the gateway gets into another server: its login, headers for what stands before the server, and the CAs to trust."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.kit.errors import Refused, quotable, unless_out_of_files


@dataclass(frozen=True, slots=True)
class Access:
    """User and password, or a token, or a file that holds the token; all empty: no login. `headers` go with every request.
    `ca_file` has the CAs that may have signed the server's certificate, in place of the usual ones."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None

    def sent(self) -> dict[str, str]:
        """The headers of one request. The token file is read each time, so a new token counts at once.

        Raises Refused("token_file") when it cannot be read, Refused("token_rejected") when it holds no token, OutOfFiles.
        """
        if self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {**self.headers, "Authorization": f"Basic {pair}"}
        token, source = self.token, "the token in the policy"
        if self.token_file is not None:
            source = f"the token file {self.token_file}"
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                unless_out_of_files(error)
                raise Refused("token_file", f"cannot read {source}: {error.strerror}") from None
            except ValueError:
                raise Refused("token_file", f"cannot read {source}: it is not text") from None
        elif not token:
            return dict(self.headers)
        return {**self.headers, "Authorization": f"Bearer {sendable(token, source)}"}

    def quote(self, words: str, sent: Mapping[str, str]) -> str:
        """The words of the server, unless they repeat a secret of the request: `sent` are its headers from `sent()`."""
        login = sent.get("Authorization", "")
        shown = quotable(words, login.partition(" ")[2], self.password, *self.headers.values(), sent=login)
        return quotable(shown, sent=f"{self.username}:{self.password}") if self.username else shown


def sendable(token: str, source: str) -> str:
    """The token, if a header can hold it. Raises Refused, which names the source."""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise Refused("token_rejected", f"{source} holds no token: one word of printable ASCII is expected")
    return token
