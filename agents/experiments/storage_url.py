"""Storage URLs: credentials in one are refused, since it is printed, and kept in the run's configuration and states."""

import re
import urllib.parse

SETTINGS = (
    *("allow_bucket_creation", "allow_bucket_deletion", "background_writes", "buffer_size", "connect_timeout"),
    *("default_block_size", "endpoint_override", "force_virtual_addressing", "project_id", "region", "replication"),
    *("request_timeout", "retry_limit_seconds", "scheme", "tls_verify_certificates"),
)
"""Settings of a file system that a URL may hold; any other could be a secret."""

_WAYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, or the machine's service account",
}
_OTHER_WAY = "the environment variables or the configuration file of that storage"
_KEYED = ("s3", "s3a", "gs", "gcs")
"""Object stores, where a name before the host is a key."""


def check_storage(url: str) -> None:
    """Refuses a storage that holds credentials; the message does not repeat them.

    Args:
        url: a path, or a URL.

    Raises:
        ValueError: it holds a key or a password, or a setting that could be one.
    """
    before, mark, rest = url.partition("://")
    if not mark:
        return
    scheme = re.split(r"\W+", before)[-1].lower()
    way = _WAYS.get({"s3a": "s3", "gcs": "gs"}.get(scheme, scheme), _OTHER_WAY)
    rest, _, fragment = rest.partition("#")
    place, _, query = rest.partition("?")
    if _has_credentials(place, scheme):
        raise ValueError(
            f"storage {scheme}://... holds credentials, which would be printed and stored; give them by {way}, and "
            f"name the place alone, such as {scheme}://bucket/runs."
        )
    settings = urllib.parse.parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    for name, value in settings + urllib.parse.parse_qsl(fragment):
        if name not in SETTINGS or "@" in value:
            raise ValueError(
                f"storage {scheme}://... has a setting that may hold a secret, which would be printed and stored; "
                f"allowed are {', '.join(SETTINGS)}; give credentials by {way}."
            )


def _has_credentials(place: str, scheme: str) -> bool:
    """Whether what follows ``://`` names more than a host, a port, a path, and a user of a host."""
    authority = place.partition("/")[0]
    user, mark, host = authority.rpartition("@")
    if scheme in _KEYED:
        return ":" in authority or (bool(mark) and user != "anonymous")
    # A secret may hold a slash: what follows a colon is a port, or the beginning of a secret.
    port = re.sub(r"^\[.*\]", "", host).partition(":")[2]
    return ":" in user or bool(port and not port.isdigit())


def mask_secrets(text: str) -> str:
    """A message without what its URLs hold that ``check_storage`` refuses."""
    return re.sub(r"://[^\s'\"]+", _masked, text)


def _masked(match: re.Match[str]) -> str:
    """A URL from ``://`` on, with stars in place of secrets."""
    url = re.sub(r"^://[^/?#@]*:[^@]*@", "://***@", match.group())
    return re.sub(r"([?&;#])([^=&;#]+)=[^&;#]+", _masked_setting, url)


def _masked_setting(match: re.Match[str]) -> str:
    """A setting in a URL, with stars in place of its value unless it is known to hold none."""
    mark, name = match.groups()
    return match.group() if name in SETTINGS else f"{mark}{name}=***"
