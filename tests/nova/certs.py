#!/usr/bin/python3
"""Signed images, whose certificates a real Barbican has, on path B."""
import contextlib
import hashlib
import re

import suite
import barbican_service
import database
import kill_trials
from actions import Action, eventually, marker
from invariants import left_of, nothing_is_left_of_deleted_servers
from rest import WentWrong
from settings import HOME
from stage import Mismatch, Server, Stage, check, equal

try:
    from certificates import Issuer
except ImportError:  # of python3-cryptography, which Nova needs: the suite says what is not installed
    Issuer = None

CERT_ACTIONS: list[Action] = []
action = marker(CERT_ACTIONS)
ROW = "operation.trusted-certs"
NOT_ITS = "its signature is not that of its content"
TRUSTFUL = "[glance]\nverify_glance_signatures = false\nenable_certificate_validation = false\n"
NOT_TRUSTED = "signature certificate validation failed.*chain building failed"


def start_hosts(cloud):
    """host2 asks for no signature by itself: only for who names certificates."""
    kill_trials.start_host(cloud, "host1")  # of a move that fails Nova leaves the source
    kill_trials.start_host(cloud, "host2", TRUSTFUL)


class CertStage(Stage):
    def __init__(self, cloud, image_path: str):
        super().__init__(cloud, image_path)
        with open(image_path, "rb") as file:
            self.content = file.read()
        self.certificates = barbican_service.Certificates(self.admin)
        self.ids: dict[Issuer, str] = {}
        self.root, self.other_root = self.keep(Issuer("root")), self.keep(Issuer("other-root"))
        self.vendor = self.keep(Issuer("vendor", self.root))
        self.other_vendor = self.keep(Issuer("other-vendor", self.other_root))
        self.signed = self.signed_image(self.vendor)

    def keep(self, issuer: Issuer) -> Issuer:
        self.ids[issuer] = self.certificates.store("certificate", issuer.pem())
        return issuer

    def signed_image(self, signer: Issuer) -> str:
        """Glance itself looks whether it is well signed."""
        return self.admin.upload_image("signed", self.image_path, **signer.sign_image(self.content, self.ids[signer]))

    def trusting(self, *issuers: Issuer) -> dict:
        return {"trusted_image_certificates": [self.ids[issuer] for issuer in issuers]}

    def bases(self) -> set[str]:
        return {f"{host.name}: {path.name}" for host in self.cloud.hosts.values()
                for path in (host.state / "adapter/images/bases").iterdir()}

    def spooled(self) -> list[str]:
        return [f"file {path}" for host in self.cloud.hosts.values() for path in (host.state / "userns").glob("image-*")]

    def refused(self, pattern: str, keep: tuple[Server, ...] = (), **more) -> None:
        """A boot that ends with such a fault, and leaves no more than its record, which says so. `keep`: who runs beside it."""
        before = self.bases()
        server = self.begin_boot(**more)
        try:
            check(re.search(pattern, said := self.fault(server)), f"the fault says {pattern}: {said}")
            equal(self.eventually_empty(lambda: self.left_beside(server, keep)), [], "what is left of it")
            equal(self.bases() - before, set(), "images that the hosts have now")
        finally:
            server.delete()

    def left_beside(self, server: Server, keep: tuple[Server, ...]) -> list[str]:
        return [each for each in left_of(self, list(keep)) if each != f"server {server.id}"] + self.spooled()

    @contextlib.contextmanager
    def booted(self, **more):
        server = self.begin_boot(**more)
        try:
            server.await_status("ACTIVE")
            yield server
        finally:
            server.delete()

    @staticmethod
    def fault(server: Server) -> str:
        found = server.await_status("ERROR", "ACTIVE")
        equal(found["status"], "ERROR", "status")
        return " ".join(found["fault"]["message"].split())


@action(ROW)
def boot_of_a_signed_image(stage):
    with stage.booted(image=stage.signed, **stage.trusting(stage.root)) as server:
        equal(server.run("/bin/echo", "hello"), "hello", "a command inside")
        equal(stage.admin.server(server.id)["trusted_image_certificates"], [stage.ids[stage.root]], "what Nova says it trusts")
        check(any("-signed-" in base for base in stage.bases()), "the base says that it was verified")


@action(ROW)
def signature_of_something_else(stage):
    image = stage.signed_image(stage.vendor)
    stage.admin.set_image(image, **stage.vendor.sign_image(b"else", stage.ids[stage.vendor]))
    stage.refused(NOT_ITS, image=image, **stage.trusting(stage.root))


@action(ROW)
def image_that_was_changed(stage):
    """By somebody who has Glance, and says there what the content now is."""
    image = stage.signed_image(stage.vendor)
    changed = stage.content[:-9] + b"by-others"
    (HOME / "glance/images" / image).write_bytes(changed)
    stage.refused("Corrupt image download", image=image, **stage.trusting(stage.root))
    database.query(f"UPDATE glance.images SET checksum = '{hashlib.md5(changed).hexdigest()}', "
                   f"os_hash_value = '{hashlib.sha512(changed).hexdigest()}' WHERE id = '{image}'")
    stage.refused(NOT_ITS, image=image, **stage.trusting(stage.root))


@action(ROW)
def certificate_that_is_not_trusted(stage):
    stage.refused(NOT_TRUSTED, image=stage.signed, **stage.trusting(stage.other_root))


@action(ROW)
def image_without_a_signature(stage):
    for host in ("host1", "host2"):
        stage.refused("properties for signature verification do not exist", host=host, **stage.trusting(stage.root))
    stage.refused("no trusted certificate IDs were provided", image=stage.signed, host="host1")


@action(ROW)
def image_that_is_there_already(stage):
    """The same image on the same host: it is there for whom it was verified, and who trusts its certificate."""
    with stage.booted(image=stage.signed, host="host1", **stage.trusting(stage.root)) as server:
        before = stage.bases()
        stage.refused(NOT_TRUSTED, (server,), image=stage.signed, host="host1", **stage.trusting(stage.other_root))
        with stage.booted(image=stage.signed, host="host1", **stage.trusting(stage.root, stage.other_root)):
            equal(stage.bases(), before, "the images of the hosts")


@action(ROW)
def base_that_nobody_verified(stage):
    """Somebody who asked for no signature has booted it on that host."""
    image = stage.signed_image(stage.vendor)
    stage.admin.set_image(image, **stage.vendor.sign_image(b"else", stage.ids[stage.vendor]))
    with stage.booted(image=image, host="host2") as server:
        stage.refused(NOT_ITS, (server,), image=image, host="host2", **stage.trusting(stage.root))
        stage.admin.set_image(image, **stage.vendor.sign_image(stage.content, stage.ids[stage.vendor]))
        with stage.booted(image=image, host="host2", **stage.trusting(stage.root)):
            pass


@action(ROW)
def certificate_that_is_withdrawn(stage):
    """After a boot that it was good for, on the same host."""
    image = stage.signed_image(vendor := stage.keep(Issuer("short-lived", stage.root)))
    with stage.booted(image=image, host="host1", **stage.trusting(stage.root)):
        stage.certificates.delete(stage.ids[vendor])
    stage.refused("Certificate not found", image=image, host="host1", **stage.trusting(stage.root))


@action(ROW, "operation.rebuild")
def rebuild_with_other_certificates(stage):
    with stage.booted(image=stage.signed, **stage.trusting(stage.root)) as server:
        ids, other = server.first_uid(), stage.signed_image(stage.other_vendor)
        server.write("marker", "before")
        server.act("rebuild", {"imageRef": other})
        said = stage.fault(server)
        check(re.search(NOT_TRUSTED, said), f"the fault of a rebuild with an image that it does not trust: {said}")
        server.act_until("rebuild", "ACTIVE", {"imageRef": other, **stage.trusting(stage.other_root)})
        equal(server.read("marker"), "missing", "a file from before")
        equal(server.first_uid(), ids, "its ids")


@action(ROW, "operation.migrate", in_short=False)
def move_to_where_it_is_verified(stage):
    image = stage.signed_image(stage.keep(Issuer("vendor-of-this", stage.root)))
    with stage.booted(image=image, host="host1", **stage.trusting(stage.root)) as server:
        server.write("marker", "moved")
        server.act_until("migrate", "VERIFY_RESIZE", None)
        equal(server.read("marker"), "moved", "a file from before")
        has_base = any(base.startswith("host2") and "-signed-" in base for base in stage.bases())
        check(has_base, "the other host has verified its image")
        server.act_until("confirmResize", "ACTIVE")


@action(ROW, "operation.migrate", in_short=False)
def move_to_where_it_cannot_be_verified(stage):
    image = stage.signed_image(vendor := stage.keep(Issuer("vendor-of-that", stage.root)))
    with stage.booted(image=image, host="host1", **stage.trusting(stage.root)) as server:
        stage.certificates.delete(stage.ids[vendor])
        try:
            server.act_until("migrate", "VERIFY_RESIZE", None)
        except WentWrong as wrong:
            check("Certificate not found" in str(wrong), f"why it was not moved: {wrong}")
        else:
            raise Mismatch("it was moved, though nobody could verify its image there")


@action(ROW, "operation.rescue", in_short=False)
def rescue_of_a_signed_one(stage):
    with stage.booted(image=stage.signed, **stage.trusting(stage.root)) as server:
        server.act_until("rescue", "RESCUE", {})
        server.act_until("unrescue", "ACTIVE")


@action(ROW, in_short=False)
def shelve_of_a_signed_one(stage):
    with stage.booted(image=stage.signed, **stage.trusting(stage.root)) as server:
        server.act_until("shelve", "SHELVED_OFFLOADED")
        server.act_until("unshelve", "ACTIVE")


REFUSALS = {
    "shelve-of-a-signed-one": ("Required image properties", "its snapshot has no signature, and Nova wants one"),
}


def nothing_is_left(stage) -> None:
    nothing_is_left_of_deleted_servers(stage)
    eventually(lambda: not stage.spooled(), f"no image is left on its way: {stage.spooled()}")


if __name__ == "__main__":
    suite.main(suite.Path("B", start_hosts, REFUSALS),
               subject=suite.Subject(CERT_ACTIONS, [("nothing-is-left-of-signed-images", nothing_is_left)], CertStage,
                                     keys=barbican_service.Barbican()))
