"""Folders: made on request, or implied by what is in them; listed page by page."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from worker.emulator.core.records import Folder
from worker.emulator.cos_json.refusals import Refusal

if TYPE_CHECKING:
    from worker.emulator.config import Settings
    from worker.emulator.core.records import Records, Stored
    from worker.emulator.cos_json.targets import Target

_MOST_LISTED = 1000


class Folders:
    """The folders of all buckets."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records = records
        self._settings = settings

    def prepare(self, target: Target) -> None:
        """Sees to it that a file can be put at the target. Call it within a transaction.

        Raises:
            Refusal: -160 the target is a folder's, -178 a file or folder is in the way, -197 no such folder.
        """
        if target.is_folder:
            raise Refusal(-160)
        folder = target.path + "/"
        if self._records.folder(target.place, folder) or self._records.begun_inside(target.place, folder) is not None:
            raise Refusal(-178, "a folder of this name exists")
        self._check_parents(target)

    def create(self, target: Target, biz_attr: str) -> Folder:
        """Makes a folder.

        Raises:
            Refusal: -161 not a folder's path, -178 it exists or a file is in the way, -197 no such parent.
        """
        if not target.path or not target.is_folder:
            raise Refusal(-161)
        with self._records.transaction():
            if self._records.folder(target.place, target.path):
                raise Refusal(-178)
            if self._records.object_at(target.place, target.path.rstrip("/")):
                raise Refusal(-178, "a file of this name exists")
            self._check_parents(target)
            folder = Folder(target.place, target.path, biz_attr, self._settings.now())
            self._records.add_folder(folder)
        return folder

    def find(self, target: Target) -> Folder:
        """The folder, one that somebody made.

        Raises:
            Refusal: -197, there is none.
        """
        folder = self._records.folder(target.place, target.path)
        if folder is None:
            raise Refusal(-197)
        return folder

    def delete(self, target: Target) -> None:
        """Removes an empty folder.

        Raises:
            Refusal: -180 the bucket itself, -197 there is none, -173 it is not empty.
        """
        if not target.path:
            raise Refusal(-180, "a bucket cannot be deleted")
        with self._records.transaction():
            if self._records.begun_inside(target.place, target.path) is not None:
                raise Refusal(-173)
            self.find(target)
            self._records.drop_folder(target.place, target.path)

    def page(self, target: Target, *, most: int, context: str) -> tuple[list[Folder | Stored], str, bool]:
        """What lies directly in a folder: entries by name, the context of the next page, and whether this was the last.

        Args:
            target: A folder, or a folder and the beginning of the names wanted.
            most: Entries on a page, at most 1000.
            context: What the page before gave; empty for the first.

        Raises:
            Refusal: -197 no such folder, -165 the size of the page, -5999 a context that was never given.
        """
        if not 0 < most <= _MOST_LISTED:
            raise Refusal(-165)
        folder, slash, prefix = target.path.rpartition("/")
        folder += slash
        if folder and self._at(target.place, folder) is None:
            raise Refusal(-197)
        try:
            after = base64.b64decode(context, altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refusal(-5999, "context") from None
        with self._records.transaction():
            paths = self._records.children(target.place, folder, prefix, after, most + 1)
            found = [
                self._at(target.place, path) if path.endswith("/") else self._records.object_at(target.place, path)
                for path in paths[:most]
            ]
        entries = [each for each in found if each is not None]
        over = len(paths) <= most
        return entries, "" if over else base64.urlsafe_b64encode(entries[-1].path.encode()).decode(), over

    def _at(self, place: str, path: str) -> Folder | None:
        """The folder that somebody made, or that is implied by what is in it."""
        began_s = self._records.begun_inside(place, path)
        return self._records.folder(place, path) or (None if began_s is None else Folder(place, path, "", began_s))

    def _check_parents(self, target: Target) -> None:
        for path in target.parents():
            if self._records.folder(target.place, path):
                continue
            if not self._settings.create_parents:
                raise Refusal(-197, f"no folder {path}")
            if self._records.object_at(target.place, path.rstrip("/")):
                raise Refusal(-178, f"{path.rstrip('/')} is a file")
