"""Barbican from Debian's packages beside the rest of the cloud, which Nova and Glance ask for certificates; and its interface.

Cloud(keys=Barbican()) has one. No image is then booted without a signature, and a certificate that the server trusts.
"""
import base64
import os

import daemon as daemon_module
import database
import rest
import settings
from settings import BARBICAN, CONFIG, KEYSTONE, TOKENS, database_url, url

PROGRAMS = ["barbican-wsgi-api", "barbican-db-manage", "mariadb-dump"]
# It has no option for its file: it looks in its user's home.
FOLDER = CONFIG / "barbican"
ENVIRONMENT = {"HOME": str(FOLDER)}

CONF = f"""[DEFAULT]
log_file = {settings.LOGS}/barbican.log
host_href = {url(BARBICAN)}
sql_connection = {database_url('barbican')}
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = {base64.b64encode(b"thirty-two bytes for this cloud.").decode()}
[oslo_policy]
policy_dirs = /etc/barbican/policy.d
enforce_scope = false
{TOKENS}"""

# They ask as the user who asks them.
OF_OTHERS = f"""[key_manager]
backend = barbican
[barbican]
auth_endpoint = {url(KEYSTONE, '/v3')}
barbican_endpoint = {url(BARBICAN)}
"""
OF_NOVA = f"""{OF_OTHERS}[glance]
verify_glance_signatures = true
enable_certificate_validation = true
"""


def missing() -> list[str]:
    folders = ("/usr/bin", "/usr/sbin")
    return [name for name in PROGRAMS if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in folders)]


class Barbican:
    def write_settings(self) -> None:
        if lacking := missing():
            raise daemon_module.NotPossible(f"not installed: {' '.join(lacking)} (group [nova] of tools/packages)")
        (FOLDER / ".barbican").mkdir(parents=True)
        (FOLDER / ".barbican/barbican.conf").write_text(CONF)
        for path, text in [("nova/nova.conf", OF_NOVA), ("glance/glance-api.conf", OF_OTHERS)]:
            with open(CONFIG / path, "a") as file:
                file.write(text)

    def start(self, databases: database.Database, start, start_wsgi) -> None:
        """With the data base and keystone there; `start_wsgi` of the cloud."""
        database.make_schema("barbican", "barbican-common", ["env", f"HOME={FOLDER}", "barbican-db-manage", "upgrade"],
                             databases.cache.parent)
        start_wsgi("barbican", BARBICAN, "/usr/bin/barbican-wsgi-api", environment=ENVIRONMENT).await_answer(BARBICAN)


class Certificates:
    """What a user keeps there."""

    def __init__(self, session: rest.Session):
        self.session = session

    def store(self, name: str, pem: bytes) -> str:
        """What Nova and Glance know it by."""
        secret = self.session.barbican("POST", "/secrets", {
            "name": name, "secret_type": "certificate", "payload": base64.b64encode(pem).decode(),
            "payload_content_type": "application/octet-stream", "payload_content_encoding": "base64"})
        return secret["secret_ref"].rpartition("/")[2]

    def delete(self, ident: str) -> None:
        self.session.barbican("DELETE", f"/secrets/{ident}")
