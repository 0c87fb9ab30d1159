"""The order of the tests."""


def pytest_collection_modifyitems(items) -> None:
    """Those that run the whole pipeline are first, in the top folder: of two at a time, none is left for the end."""
    items.sort(key=lambda item: len(item.path.parts))
