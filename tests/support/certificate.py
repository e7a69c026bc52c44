"""An authority of a test's own, and the certificates that it signs; none is trusted by anyone else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Signs certificates; keeps them in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name = folder, name
        self._ca = trustme.CA(organization_name=f"fake {name} of a test", key_type=trustme.KeyType.ECDSA)
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def identity(self, *names: str) -> Path:
        """Return a file with a key, a certificate for these names, and the authority's: to serve with and to trust."""
        issued = self._ca.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
        path = self._folder / f"{self._name}-{'-'.join(names).replace('*', 'any')}.pem"
        path.write_bytes(issued.private_key_and_cert_chain_pem.bytes() + self._ca.cert_pem.bytes())
        return path
