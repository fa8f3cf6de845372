"""Every public method of ComputeDriver is there or left out for a reason, and takes what Nova passes, old and new."""
import inspect
import pathlib
import subprocess
import sys
import unittest

import nova_objects
from nova.virt import driver as nova_driver
from nova.virt.userns import driver as userns_driver

# What the base class answers, which is NotImplementedError or nothing, and why that is right.
LEFT_OUT = {
    "rebuild": "Nova's own way: power_off, destroy, spawn with the ids that the instance had",
    "prepare_for_spawn": "nothing to prepare", "failed_spawn_cleanup": "spawn cleans up itself",
    "prepare_networks_before_block_device_mapping": "volumes need no network of the instance",
    "clean_networks_preparation": "as above",
    "default_root_device_name": "Nova chooses", "default_device_names_for_instance": "Nova chooses",
    "get_device_name_for_instance": "Nova chooses",
    "get_vnc_console": "no screen", "get_spice_console": "no screen", "get_rdp_console": "no screen",
    "get_mks_console": "no screen",
    "get_all_volume_usage": "no counters for each volume", "block_stats": "as above",
    "volume_snapshot_create": "files of NFS", "volume_snapshot_delete": "files of NFS",
    "power_update_event": "for bare metal", "soft_delete": "Nova powers off instead", "restore": "Nova powers on instead",
    "pre_live_migration": "refused before", "live_migration": "refused before", "live_migration_force_complete": "as above",
    "live_migration_abort": "as above", "rollback_live_migration_at_source": "as above",
    "rollback_live_migration_at_destination": "as above", "post_live_migration": "as above",
    "post_live_migration_at_source": "as above", "post_live_migration_at_destination": "as above",
    "post_claim_migrate_data": "as above", "cleanup_live_migration_destination_check": "as above",
    "check_can_live_migrate_source": "as above", "get_instance_disk_info": "for live migration",
    "check_instance_shared_storage_local": "storage is not shared", "check_instance_shared_storage_remote": "as above",
    "check_instance_shared_storage_cleanup": "as above", "instance_on_disk": "as above: False",
    "inject_network_info": "nobody calls it", "host_power_action": "not the scheduler's to do",
    "host_maintenance_mode": "nothing in Nova needs it", "set_host_enabled": "the service's state does it",
    "is_supported_fs_format": "no ephemeral disks of the user's choice", "network_binding_host_id": "the base says it",
    "manages_network_binding_host_id": "Nova does", "cleanup_lingering_instance_resources": "nothing lingers",
    "get_num_instances": "the base counts the list",
    "node_is_available": "the base asks the list", "capabilities_as_traits": "the base reads capabilities",
    "register_event_listener": "the base keeps it", "emit_event": "the base calls it",
}

# How Nova of 2025.2 calls what it calls otherwise than 26.2 does: positional arguments, and those by name.
NEWER = {
    "reboot": (["context", "instance", "network_info", "HARD"], ["block_device_info", "bad_volumes_callback", "accel_info",
                                                                 "share_info"]),
    "power_on": (["context", "instance", "network_info", "block_device_info", "accel_info"], ["share_info"]),
    "resume": (["context", "instance", "network_info", "block_device_info"], ["share_info"]),
    "resume_state_on_host_boot": (["context", "instance", "network_info", "share_info", "block_device_info"], []),
    "rescue": (["context", "instance", "network_info", "image_meta", "password", "block_device_info", "share_info"], []),
    "get_nodenames_by_uuid": ([], ["refresh"]),
    "finish_revert_migration": (["context", "instance", "network_info", "migration", "block_device_info", "power_on"], []),
}


def public(cls):
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


class SignatureTest(unittest.TestCase):
    def test_all_are_there_or_left_out_for_a_reason(self):
        ours = {name for name in public(userns_driver.UsernsDriver)
                if getattr(userns_driver.UsernsDriver, name) is not getattr(nova_driver.ComputeDriver, name, None)}
        known = public(nova_driver.ComputeDriver)
        self.assertEqual(known - ours - set(LEFT_OUT), set())
        self.assertEqual(set(LEFT_OUT) & ours, set())

    def test_arguments_of_this_release(self):
        for name in public(userns_driver.UsernsDriver) & public(nova_driver.ComputeDriver) - set(LEFT_OUT):
            ours = inspect.signature(getattr(userns_driver.UsernsDriver, name))
            theirs = inspect.signature(getattr(nova_driver.ComputeDriver, name)).parameters
            with self.subTest(name):
                ours.bind(*theirs)
                required = [key for key, value in theirs.items() if value.default is value.empty]
                optional = {key: None for key, value in theirs.items() if value.default is not value.empty}
                ours.bind(*required, **optional)
                for key, value in theirs.items():
                    if value.default is not value.empty and key in ours.parameters:
                        self.assertEqual(ours.parameters[key].default, value.default, key)

    def test_arguments_of_newer_releases(self):
        for name, (positional, named) in NEWER.items():
            with self.subTest(name):
                method = getattr(userns_driver.UsernsDriver, name)
                inspect.signature(method).bind("self", *positional, **dict.fromkeys(named))

    def test_start_from_the_source_tree(self):
        launcher = pathlib.Path(nova_objects.__file__).parents[3] / "driver" / "compute" / "nova" / "nova-compute-userns"
        said = subprocess.run([sys.executable, launcher, "--version"], capture_output=True, text=True, timeout=100, check=False)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertRegex(said.stdout, r"^\d+\.\d+")
