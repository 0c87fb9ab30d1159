"""Objects behind a URI (s3://, gs://, hf://, https://, memory://, …), through fsspec.

Where they are reached, and who asks, comes from the environment as each package has it (AWS_PROFILE,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN, …), never from files of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from pipeline.sources.patterns import is_hidden, name_below, split_pattern

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "sha256")
"""Under which of these a store says what an object holds."""


def is_uri(path: str) -> bool:
    """Whether it is a URI rather than a path."""
    return "://" in path


def without_file_scheme(path: str) -> str:
    """A path for a file:// URI, so that a file has one name; anything else as it is."""
    return path.removeprefix("file://")


def in_store(location: str) -> str:
    """A location as its store has it, which may leave out a host or an account; a path as it is.

    Raises:
        ValueError: the store's package is missing.
    """
    if not is_uri(location):
        return location
    with _reaching(location):
        from fsspec import get_filesystem_class

        stripped: str = get_filesystem_class(location.partition("://")[0])._strip_protocol(location)
        return stripped


def find_objects(uri: str) -> list[str]:
    """The URIs of the objects that a URI names: itself, all below it, or all that match it as a pattern or lie below a
    folder that does; sorted. As in a local folder, those with a hidden name below its part without wildcards are not.

    Raises:
        ValueError: the store cannot be reached, or its package is missing.
    """
    with _reaching(uri):
        system, path = _filesystem(uri)
        if system.isfile(path):
            return [system.unstrip_protocol(path)]
        fixed, pattern = split_pattern(path)
        found = _match(system, path) if pattern else system.find(path)
        if not found:
            _require_reached(system, fixed)
        return sorted(
            system.unstrip_protocol(name)
            for name in found
            if not name.endswith("/") and not is_hidden(name_below(path, name))  # x/ is how consoles make a folder x
        )


def describe(uri: str) -> tuple[int, str | None]:
    """The size of an object in bytes, and its tag, where the store keeps one.

    Raises:
        ValueError: it is not there, or the store cannot be reached.
    """
    with _reaching(uri):
        system, path = _filesystem(uri)
        return _size_and_tag(system.info(path))


def open_object(uri: str, etag: str | None) -> BinaryIO:
    """Open an object, which has to have this tag.

    Raises:
        ValueError: it has not, is not there, or cannot be reached.
    """
    with _reaching(uri):
        system, path = _filesystem(uri)
        if etag is not None and _size_and_tag(system.info(path))[1] != etag:
            raise ChangedError(changed(uri))
        return cast(BinaryIO, system.open(path, "rb", cache_type="none"))  # the caller buffers


def changed(location: str) -> str:
    """What to say of an object that is not as pinned."""
    return f"{location} is not what sources.lock.json pins: bring it back, or pin it as it is, {HOW_TO_PIN}"


HOW_TO_PIN = "with `python -m pipeline.sources`"


class ChangedError(ValueError):
    """An object is not the one that was pinned."""


def _size_and_tag(info: dict[str, Any]) -> tuple[int, str | None]:
    tag = next((str(info[name]).strip('"') for name in _TAGS if info.get(name)), None)
    return int(info.get("size") or 0), tag


def _match(system: Any, pattern: str) -> set[str]:
    """The objects that a pattern matches, and all that lie below a folder that it matches."""
    matched = system.glob(pattern, detail=True)
    folders = sorted(f"{name.rstrip('/')}/" for name, info in matched.items() if info["type"] == "directory")
    found = {name for name, info in matched.items() if info["type"] != "directory"}
    listed = None
    for folder in folders:
        if listed is None or not folder.startswith(listed):  # what is below a folder is listed with it
            listed = folder
            found.update(system.find(folder))
    return found


def _require_reached(system: Any, path: str) -> None:
    """Raise what kept a store from being asked, which some (http) take for a place where nothing is."""
    try:
        system.info(path)
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    return url_to_fs(uri, use_listings_cache=False)


def _how_to_install(uri: str) -> str:
    """What brings the store of a URI to fsspec."""
    from fsspec.registry import known_implementations

    known = known_implementations.get(uri.partition("://")[0], {"class": "fsspec"})
    package = known["class"].partition(".")[0]
    if package == "fsspec":  # its own stores, and chains of stores, need what the error names
        return "run `pip install` with what that names"
    wanted = "'.[cloud]'" if package == "s3fs" else package
    return f"run `pip install {wanted}`"


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    try:
        yield
    except ChangedError:
        raise
    except ImportError as error:
        raise ValueError(
            f"{uri}: the package for such addresses is not installed ({error}): {_how_to_install(uri)}"
        ) from None
    except FileNotFoundError:
        raise ValueError(f"{uri}: there is no such object") from None
    except Exception as error:  # the packages have no error in common
        raise ValueError(f"{uri} cannot be reached: {type(error).__name__}: {error}") from None
