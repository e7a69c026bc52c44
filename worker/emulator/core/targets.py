"""A place in a bucket."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A place in a bucket. The path is decoded, has no leading slash, and ends with one if it is a folder."""

    appid: str
    bucket: str
    path: str

    @property
    def place(self) -> str:
        """Account and bucket, as the records name them."""
        return f"{self.appid}/{self.bucket}"

    @property
    def is_folder(self) -> bool:
        """Whether the path is one of a folder; the bucket itself is."""
        return not self.path or self.path.endswith("/")

    def sibling(self, path: str) -> Target:
        """Another path in the same bucket."""
        return Target(self.appid, self.bucket, path)

    def parents(self) -> list[str]:
        """Paths of the folders above, outermost first, without the bucket itself."""
        steps = self.path.rstrip("/").split("/")[:-1]
        return ["/".join(steps[: depth + 1]) + "/" for depth in range(len(steps))]
