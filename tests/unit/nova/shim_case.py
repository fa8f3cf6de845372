"""What the cases share: a scripted adapter, and the driver on its socket."""
import time
import unittest
import unittest.mock

import fake_adapter
import nova_objects


class ShimCase(unittest.TestCase):
    options = {}

    def setUp(self):
        self.adapter = fake_adapter.FakeAdapter()
        self.addCleanup(self.adapter.close)
        self.driver = nova_objects.load_driver(self.adapter.path, **self.options)
        self.addCleanup(self.driver._adapter.close)
        self.glance = FakeGlance()
        self.driver._images._glance = self.glance
        # What os-vif makes are links of the host.
        for name in ("plug", "unplug"):
            patch = unittest.mock.patch(f"os_vif.{name}")
            setattr(self, name, patch.start())
            self.addCleanup(patch.stop)
        # What the database has of an instance.
        self.vif_records, self.mappings = [], []
        for kind, records in [("VirtualInterfaceList", self.vif_records), ("BlockDeviceMappingList", self.mappings)]:
            patch = unittest.mock.patch(f"nova.objects.{kind}.get_by_instance_uuid", return_value=records)
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(lambda: self.assertEqual(self.adapter.complaints, []))

    def script(self, method, script):
        self.adapter.scripts[method] = script

    def refuse(self, method, kind, message="refused", **more):
        def refusal(**_params):
            raise fake_adapter.Refusal(kind, message, **more)
        self.script(method, refusal)

    def eventually(self, what, condition):
        for _ in range(3000):
            if condition():
                return
            time.sleep(0.01)
        self.fail(f"never: {what}")


class FakeGlance:
    """Image records, and what was downloaded and uploaded."""

    def __init__(self):
        self.record = {"id": nova_objects.IMAGE_ID, "name": "snap", "disk_format": "raw", "container_format": "bare",
                       "checksum": "0" * 32, "os_hash_algo": "sha512", "os_hash_value": "a" * 128}
        self.asked, self.downloads, self.uploads, self.content = [], [], [], b"disk"
        self.while_downloading = lambda: None

    def get(self, _context, image_id, **_more):
        self.asked.append(image_id)
        return dict(self.record)

    def download(self, _context, image_id, dest_path=None, trusted_certs=None):
        self.while_downloading()
        self.downloads.append((image_id, dest_path, trusted_certs))
        with open(dest_path, "wb") as out:
            out.write(self.content)

    def update(self, _context, image_id, metadata, data=None, purge_props=True):
        self.uploads.append((image_id, metadata, data.read(), purge_props))
