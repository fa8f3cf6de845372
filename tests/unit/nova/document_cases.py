"""The scripted adapter and docs/compute-api.md say the same: else the other cases would hold the driver to nothing."""
import unittest

import compute_api
import fake_adapter


def members(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)


# Names that are data, and two that the document abbreviates.
FREE = {"host", "secret", "tx_octets", "tx_packets", "tx_drop", "tx_errors", "first", "count"}


class DocumentTest(unittest.TestCase):
    def test_table_is_read(self):
        known = compute_api.parameters()
        self.assertEqual(known["instance.destroy"], ["uuid", "disks", "rebuild", "revert?"])
        self.assertEqual(known["instance.unpause"], ["uuid"])
        self.assertEqual(known["instance.reboot"], ["uuid", "type", "network", "volumes"])
        self.assertEqual(known["api.version"], [])
        self.assertGreater(len(known), 40)

    def test_answers_have_documented_members(self):
        documented = compute_api.results()
        for method, answer in fake_adapter.ANSWERS.items():
            self.assertLessEqual(set(members(answer)), documented[method] | compute_api.features() | FREE, method)

    def test_features_are_documented(self):
        self.assertEqual(set(fake_adapter.DESCRIBED["features"]), compute_api.features())

    def test_wrong_requests_are_told(self):
        for params in ({}, {"uuid": "a"}, {"uuid": "a", "disks": 1, "rebuild": False},
                       {"uuid": "a", "disks": True, "rebuild": False, "more": 1}):
            self.assertTrue(compute_api.complaints("instance.destroy", params), params)
        self.assertEqual(compute_api.complaints("instance.destroy", {"uuid": "a", "disks": True, "rebuild": False}), [])
        vif = {"id": "a", "mac": "b", "color": "red"}
        self.assertEqual(compute_api.complaints("instance.attach_interface", {"uuid": "a", "vif": vif}),
                         ["instance.attach_interface: vif.color is not in the document"])
