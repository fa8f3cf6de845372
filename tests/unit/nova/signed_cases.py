"""Images whose signature Nova checks, by its own code and real certificates: each boot asks for the certificate, and no base is
taken for one that was verified."""
import os
import pathlib
import sys
import unittest.mock

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "support"))
import fake_adapter  # noqa: E402
import nova_objects  # noqa: E402
from certificates import Issuer  # noqa: E402
from cursive import exception as cursive_exception  # noqa: E402
from nova import exception  # noqa: E402
from nova import objects  # noqa: E402
from nova.image import glance  # noqa: E402
from nova_objects import CONF, CONTEXT, IMAGE_ID, UUID  # noqa: E402
from shim_case import ShimCase  # noqa: E402


class Chunks(list):
    wrapped = True


class SignedCase(ShimCase):
    @classmethod
    def setUpClass(cls):
        cls.root, cls.other_root = Issuer("root"), Issuer("other root")
        cls.vendor, cls.thief = Issuer("vendor", cls.root), Issuer("thief", cls.other_root)

    def setUp(self):
        super().setUp()
        self.certificates = {"root": self.root, "other-root": self.other_root, "vendor": self.vendor, "thief": self.thief}
        self.asked_for, self.content, self.shown = [], b"disk", 0
        self.sign(self.vendor, "vendor")
        self.held, self.added = {}, []
        self.script("image.has", lambda key: {"present": key in self.held})
        self.script("image.add", self.add)
        self.script("instance.spawn", self.spawn_request)
        for target, function in [("cursive.signature_utils.get_certificate", self.certificate),
                                 ("nova.image.glance.GlanceImageServiceV2.show", self.show),
                                 ("nova.image.glance.GlanceClientWrapper.call", self.client_call)]:
            patch = unittest.mock.patch(target, side_effect=function)
            patch.start()
            self.addCleanup(patch.stop)
        self.glance.get = self.show
        self.glance.download = lambda context, image_id, dest_path, **more: glance.API().download(
            context, image_id, dest_path=dest_path, **more)

    # ---- the services

    def certificate(self, _context, ident):
        self.asked_for.append(ident)
        if ident not in self.certificates:
            raise cursive_exception.SignatureVerificationError(reason=f"no certificate {ident}")
        return self.certificates[ident].certificate

    def show(self, *_args, **_more):
        self.shown += 1
        return {**self.glance.record, "properties": dict(self.properties)}

    def client_call(self, _context, _version, method, args=(), **_more):
        self.assertEqual((method, args), ("data", (IMAGE_ID,)))
        self.glance.downloads.append(args)
        return Chunks([self.content[:2], self.content[2:]])

    def add(self, key, format, path, max_mb):
        with open(path, "rb") as data:
            self.held[key] = data.read()
        self.added.append(key)
        return {"bytes": 4}

    def spawn_request(self, image, **_params):
        if image["key"] not in self.held:
            raise fake_adapter.Refusal("image-missing", "not here")
        self.booted = self.held[image["key"]]
        return fake_adapter.ANSWERS["instance.spawn"]

    # ---- what is done

    def sign(self, signer, ident, content=None):
        self.properties = signer.sign_image(content or self.content, ident)

    def spawn(self, *trusted):
        self.booted = None
        instance = nova_objects.instance(trusted_certs=objects.TrustedCerts(ids=list(trusted)) if trusted else None)
        self.driver.spawn(CONTEXT, instance, nova_objects.image_meta(), [], None, {})

    def refused(self, kind, said, *trusted):
        before = len(self.added)
        with self.assertRaisesRegex(kind, said):
            self.spawn(*trusted)
        self.assertIsNone(self.booted)
        self.assertEqual(len(self.added), before)
        spool = CONF.userns.spool_path
        self.assertEqual(os.listdir(spool) if os.path.isdir(spool) else [], [])


class SignedTest(SignedCase):
    def test_trusted(self):
        self.spawn("root")
        self.assertEqual(self.booted, b"disk")
        self.assertRegex(self.added[0], r"\Asha512-a{128}-raw-signed-[A-Za-z0-9_-]{43}\Z")

    def test_the_longest_key(self):
        self.glance.record["disk_format"] = "root-tar"
        self.spawn("root")
        self.assertRegex(self.added[0], r"\A[A-Za-z0-9_-]{1,200}\Z")

    def test_not_trusted(self):
        self.refused(exception.CertificateValidationFailed, "validation failed for certificate: vendor", "other-root")
        self.assertEqual(self.glance.downloads, [])

    def test_no_signature(self):
        self.properties = {}
        self.refused(cursive_exception.SignatureVerificationError, "do not exist", "root")

    def test_signature_of_something_else(self):
        self.sign(self.vendor, "vendor", b"else")
        self.refused(exception.ImageUnacceptable, "its signature is not that of its content", "root")

    def test_content_that_was_changed(self):
        self.content = b"risk"
        self.refused(exception.ImageUnacceptable, "its signature is not that of its content", "root")

    def test_each_boot_asks_for_the_certificate(self):
        self.spawn("root")
        del self.asked_for[:]
        self.spawn("root")
        self.assertEqual((self.booted, self.asked_for), (b"disk", ["vendor", "root", "vendor"]))
        self.assertEqual(len(self.glance.downloads), 1)
        self.refused(exception.CertificateValidationFailed, "vendor", "other-root")
        del self.certificates["vendor"]
        self.refused(cursive_exception.SignatureVerificationError, "no certificate vendor", "root")

    def test_a_base_that_nobody_verified(self):
        """Of an instance that wanted no signature: what Glance says of the content is not what a signature says."""
        self.content = b"risk"
        self.spawn()
        self.assertEqual((self.booted, self.glance.downloads), (b"risk", [(IMAGE_ID,)]))
        self.refused(exception.ImageUnacceptable, "its signature is not that of its content", "root")
        self.content = b"disk"
        self.spawn("root")
        self.assertEqual(self.booted, b"disk")
        self.spawn()
        self.assertEqual(len(self.glance.downloads), 3)

    def test_another_signature_of_the_same_content(self):
        self.spawn("root")
        self.sign(self.thief, "thief")
        self.spawn("other-root")
        self.assertEqual(len(set(self.added)), 2)
        self.refused(exception.CertificateValidationFailed, "thief", "root")

    def test_a_signature_that_is_put_in_the_place_of_another(self):
        """Between two questions: the base would have the name of the one, and be verified by the other."""
        of_vendor = self.properties
        self.content = b"risk"
        self.sign(self.thief, "thief")
        of_thief, answers = self.properties, []

        def show(*_args, **_more):
            answers.append(of_thief if answers else of_vendor)
            return {**self.glance.record, "properties": answers[-1]}
        with unittest.mock.patch("nova.image.glance.GlanceImageServiceV2.show", side_effect=show):
            self.refused(exception.ImageUnacceptable, "its signature is not that of its content", "root", "other-root")

    def test_all_are_to_be_signed(self):
        CONF.set_override("verify_glance_signatures", True, group="glance")
        self.addCleanup(CONF.clear_override, "verify_glance_signatures", group="glance")
        self.spawn()
        self.assertIn("-signed-", self.added[0])
        self.assertFalse(self.driver.cache_image(CONTEXT, IMAGE_ID))
        CONF.set_override("enable_certificate_validation", True, group="glance")
        self.addCleanup(CONF.clear_override, "enable_certificate_validation", group="glance")
        self.refused(exception.CertificateValidationFailed, "no trusted certificate IDs were provided")


class MovedTest(SignedCase):
    def setUp(self):
        super().setUp()
        self.spawn("root")
        self.image = {"key": self.added[0], "format": "raw"}
        self.script("instance.migrate_in", lambda ticket, **_params: self.spawn_request(ticket["image"]))

    def arrive(self):
        ticket = f'{{"image": {{"key": "{self.image["key"]}", "format": "raw"}}}}'
        instance = nova_objects.instance(trusted_certs=objects.TrustedCerts(ids=["root"]))
        self.driver.finish_migration(CONTEXT, None, instance, ticket, nova_objects.network_info(), nova_objects.image_meta(),
                                     True, {})

    def test_where_its_base_is(self):
        """Nobody is asked: a certificate that has expired keeps no instance from moving."""
        self.certificates.clear()
        before = self.shown
        self.arrive()
        self.assertEqual(self.shown, before)

    def test_where_its_base_is_fetched(self):
        self.held.clear()
        self.arrive()
        self.assertEqual(self.added, [self.image["key"]] * 2)
        self.held.clear()
        self.content = b"risk"
        with self.assertRaises(exception.ImageUnacceptable):
            self.arrive()
        self.assertEqual(self.adapter.asked("instance.migrate_in")[-1]["instance"]["uuid"], UUID)

    def test_older_than_the_wish_for_signatures(self):
        self.image["key"] = self.image["key"].partition("-signed-")[0]
        self.arrive()
        self.assertEqual(self.added[1:], [self.image["key"]])
        self.held.clear()
        self.content = b"risk"
        with self.assertRaises(exception.ImageUnacceptable):
            self.arrive()

    def test_the_image_has_another_signature_now(self):
        """What was verified by that is not what the instance was made of."""
        self.held.clear()
        self.sign(self.vendor, "vendor")
        with self.assertRaises(exception.NovaException):
            self.arrive()
        self.assertNotIn(self.image["key"], self.held)
