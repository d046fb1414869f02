"""The namespace a launched node ends up in."""


def full_namespace(pushed: str, given: str) -> tuple[str, ...]:
    """Its parts: `given`, and before it what a group has `pushed` (PushRosNamespace) unless `given` is absolute."""
    return tuple(filter(None, (given if given.startswith("/") else f"{pushed}/{given}").split("/")))
