"""The target of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A path in a bucket: decoded, without a leading slash; that of a folder ends with a slash."""

    appid: str
    bucket: str
    path: str

    @property
    def bucket_id(self) -> str:
        """`<appid>/<bucket>`, the bucket of the records."""
        return f"{self.appid}/{self.bucket}"

    @property
    def is_folder(self) -> bool:
        """Whether the path is that of a folder; so is the root of the bucket."""
        return not self.path or self.path.endswith("/")

    def parents(self) -> list[str]:
        """Paths of the folders above, outermost first, without the root of the bucket."""
        names = self.path.rstrip("/").split("/")[:-1]
        return ["/".join(names[: depth + 1]) + "/" for depth in range(len(names))]
