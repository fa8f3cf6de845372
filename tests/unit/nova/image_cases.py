"""Images on their way: keys, one download for all who want it at once, and nothing left in the spool."""
import errno
import os
import threading

import fake_adapter
import nova_objects
from nova import exception
from nova.compute import task_states
from nova.virt.userns import adapter as userns_adapter
from nova.virt.userns import images
from nova_objects import CONF, CONTEXT, IMAGE_ID, UUID
from shim_case import ShimCase


class ImageTest(ShimCase):
    def setUp(self):
        super().setUp()
        self.held = set()
        self.script("image.has", lambda key: {"present": key in self.held})
        self.script("image.add", self.add)
        self.script("instance.spawn", self.spawn_request)
        self.added = []

    def add(self, key, format, path, max_mb=None):
        with open(path, "rb") as data:
            self.added.append((format, data.read(), os.stat(path).st_mode & 0o777))
        self.held.add(key)
        return {"bytes": 4}

    def spawn_request(self, image, **_params):
        if image["key"] not in self.held:
            raise fake_adapter.Refusal("image-missing", "not here")
        return fake_adapter.ANSWERS["instance.spawn"]

    def spawn(self):
        self.driver.spawn(CONTEXT, nova_objects.instance(), nova_objects.image_meta(), [], None, {})

    def spool(self):
        return os.listdir(CONF.userns.spool_path) if os.path.isdir(CONF.userns.spool_path) else []

    def test_fetched_once(self):
        self.spawn()
        self.spawn()
        self.assertEqual(self.added, [("raw", b"disk", 0o600)])
        self.assertEqual(self.adapter.methods(), ["instance.spawn", "image.has", "image.has", "image.add", "instance.spawn",
                                                  "instance.spawn"])
        self.assertEqual(self.glance.asked, [IMAGE_ID])
        self.assertEqual(self.spool(), [])

    def test_many_at_once_fetch_it_once(self):
        started, release = threading.Event(), threading.Event()

        def wait():
            started.set()
            release.wait(60)
        self.glance.while_downloading = wait
        threads = [threading.Thread(target=self.spawn) for _ in range(8)]
        for thread in threads:
            thread.start()
        started.wait(60)
        self.eventually("all have asked", lambda: len(self.adapter.asked("instance.spawn")) == 8)
        release.set()
        for thread in threads:
            thread.join()
        self.assertEqual(len(self.glance.downloads), 1)
        self.assertEqual(len(self.adapter.asked("instance.spawn")), 16)

    def test_swept_in_between(self):
        def add_and_lose(key, **_params):
            self.adapter.scripts["image.add"] = self.add
            return {"bytes": 4}
        self.script("image.add", add_and_lose)
        self.spawn()
        self.assertEqual(len(self.glance.downloads), 2)

    def test_never_there(self):
        self.script("image.add", lambda **_params: {"bytes": 4})
        with self.assertRaises(userns_adapter.ImageMissing):
            self.spawn()
        self.assertEqual(len(self.glance.downloads), 2)

    def test_refused(self):
        self.refuse("image.add", "image-refused", "it has two file systems")
        with self.assertRaisesRegex(exception.ImageUnacceptable, "it has two file systems"):
            self.spawn()
        self.assertEqual(self.spool(), [])

    def spawned_with(self, **changes):
        """The limits of both requests; and None where the second has none of its own."""
        self.held.clear()
        self.driver.spawn(CONTEXT, nova_objects.instance(**changes), nova_objects.image_meta(), [], None, {})
        return self.adapter.asked("image.add")[-1].get("max_mb"), self.adapter.asked("instance.spawn")[-1].get("max_mb")

    def test_no_larger_than_the_flavors_disk(self):
        self.assertEqual(self.spawned_with(), (1024, None))
        self.assertEqual(self.spawned_with(flavor=nova_objects.flavor(root_gb=7)), (7168, None))
        # That Nova means by it: as large as the image is.
        self.assertEqual(self.spawned_with(flavor=nova_objects.flavor(root_gb=0)), (None, None))
        # What it was shelved as it gets back; another's it does not.
        self.assertEqual(self.spawned_with(system_metadata={"shelved_image_id": IMAGE_ID}), (0, 0))
        self.assertEqual(self.spawned_with(system_metadata={"shelved_image_id": "another"}), (1024, None))
        self.driver.cache_image(CONTEXT, IMAGE_ID)
        self.held.clear()
        self.driver.cache_image(CONTEXT, IMAGE_ID)
        self.assertNotIn("max_mb", self.adapter.asked("image.add")[-1])

    def test_too_large(self):
        """For Nova it is what libvirt's driver says: it is not tried elsewhere."""
        for method in ("image.add", "instance.spawn"):
            self.refuse(method, "image-too-large", "choose a flavor with a larger disk")
            with self.assertRaisesRegex(exception.FlavorDiskSmallerThanImage, "choose a flavor with a larger disk"):
                self.spawn()
            self.assertEqual(self.spool(), [])
        self.assertEqual(len(self.glance.downloads), 1)

    def test_glance_fails(self):
        def fail():
            raise exception.ImageNotFound(image_id=IMAGE_ID)
        self.glance.while_downloading = fail
        with self.assertRaises(exception.ImageNotFound):
            self.spawn()
        self.assertEqual(self.spool(), [])
        self.assertEqual(self.added, [])

    def test_content_of_another_hash(self):
        """As glanceclient says it. Nova would try all hosts."""
        def fail():
            raise OSError(errno.EPIPE, "Corrupt image download. Hash was 00 expected 11")
        self.glance.while_downloading = fail
        with self.assertRaisesRegex(exception.ImageUnacceptable, "Corrupt image download. Hash was 00 expected 11"):
            self.spawn()
        self.assertEqual(self.spool(), [])

    def test_no_space_for_the_download(self):
        def fail():
            raise OSError(errno.ENOSPC, "No space left on device")
        self.glance.while_downloading = fail
        with self.assertRaises(OSError):
            self.spawn()
        self.assertEqual(self.spool(), [])

    def test_keys(self):
        """They say what the bytes are and how they are to be read, in characters that the adapter takes."""
        record = {"id": IMAGE_ID, "disk_format": "qcow2", "checksum": "c" * 32, "os_hash_algo": "sha512", "os_hash_value": "d" * 128}
        self.assertEqual(images._reference(record), {"key": "sha512-" + "d" * 128 + "-qcow2", "format": "qcow2"})
        self.assertEqual(images._reference({**record, "os_hash_value": None})["key"], "md5-" + "c" * 32 + "-qcow2")
        self.assertEqual(images._reference({**record, "os_hash_value": None, "checksum": None, "disk_format": "root-tar"})["key"],
                         f"id-{IMAGE_ID}-root-tar")
        self.assertEqual(images._reference({**record, "disk_format": "ami"})["format"], "raw")
        for found in (images._reference(record), images._reference({**record, "disk_format": "root-tar"})):
            self.assertRegex(found["key"], r"\A[A-Za-z0-9_-]{1,200}\Z")

    def test_an_image_that_is_not_active_yet_is_not_remembered(self):
        self.glance.record.update(os_hash_value=None, checksum=None)
        first = self.driver._images.reference(CONTEXT, IMAGE_ID)["key"]
        self.glance.record.update(checksum="e" * 32)
        self.assertNotEqual(self.driver._images.reference(CONTEXT, IMAGE_ID)["key"], first)

    def test_cache_image(self):
        self.assertTrue(self.driver.cache_image(CONTEXT, IMAGE_ID))
        self.assertFalse(self.driver.cache_image(CONTEXT, IMAGE_ID))

    def test_sweep_is_the_operators_choice(self):
        self.driver.manage_image_cache(CONTEXT, [])
        self.assertEqual(self.adapter.asked("image.sweep"), [{"max_age_s": 86400, "keep_unused_for_s": 600}])
        CONF.set_override("image_cache_mb", 100, group="userns")
        self.addCleanup(CONF.clear_override, "image_cache_mb", group="userns")
        self.driver.manage_image_cache(CONTEXT, [])
        self.assertEqual(self.adapter.asked("image.sweep")[1]["max_mb"], 100)
        CONF.set_override("remove_unused_base_images", False, group="image_cache")
        self.addCleanup(CONF.clear_override, "remove_unused_base_images", group="image_cache")
        self.driver.manage_image_cache(CONTEXT, [])
        self.assertEqual(len(self.adapter.asked("image.sweep")), 2)

    def test_snapshot(self):
        def write(path, **_params):
            with open(path, "wb") as out:
                out.write(b"tar")
            return {"format": "root-tar", "bytes": 3}
        self.script("instance.snapshot", write)
        states = []
        self.driver.snapshot(CONTEXT, nova_objects.instance(), "snapshot-1", lambda **state: states.append(state))
        self.assertEqual(states, [{"task_state": task_states.IMAGE_PENDING_UPLOAD},
                                  {"task_state": task_states.IMAGE_UPLOADING, "expected_state": task_states.IMAGE_PENDING_UPLOAD}])
        (image_id, metadata, data, purge), = self.glance.uploads
        self.assertEqual((image_id, data, purge), ("snapshot-1", b"tar", False))
        self.assertEqual((metadata["name"], metadata["disk_format"], metadata["container_format"], metadata["status"]),
                         ("snap", "root-tar", "bare", "active"))
        self.assertEqual(self.spool(), [])

    def test_snapshot_fails(self):
        self.refuse("instance.snapshot", "no-space", "the spool is full")
        with self.assertRaises(exception.ComputeResourcesUnavailable):
            self.driver.snapshot(CONTEXT, nova_objects.instance(), "snapshot-1", lambda **_state: None)
        self.assertEqual((self.glance.uploads, self.spool()), ([], []))

    def test_spool_of_a_killed_service_is_cleared(self):
        os.makedirs(CONF.userns.spool_path)
        for name in ("image-abc", "other"):
            with open(os.path.join(CONF.userns.spool_path, name), "w"):
                pass
        self.driver.init_host("compute-1")
        self.addCleanup(self.driver.cleanup_host, "compute-1")
        self.assertEqual(self.spool(), ["other"])


class RequestOfOneInstanceTest(ShimCase):
    def test_image_of_an_error(self):
        self.refuse("instance.rescue", "image-refused", "no file system")
        with self.assertRaisesRegex(exception.ImageUnacceptable, "no file system"):
            self.driver.rescue(CONTEXT, nova_objects.instance(), [], nova_objects.image_meta(), "secret", None)
        self.assertEqual(self.adapter.asked("instance.rescue")[0]["uuid"], UUID)
