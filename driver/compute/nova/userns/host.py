"""What the adapter says of its host, as Nova's resource tracker and Placement want it."""

import json

import os_resource_classes as orc
import os_traits

import nova.conf
from nova.virt import driver

CONF = nova.conf.CONF

# Placement's trait and inventory names that are ours; what others have set on the provider is left alone.
_TRAIT_PREFIXES = ('HW_CPU_', 'CUSTOM_USERNS')

# Capabilities of Nova's drivers, and the adapter's features (host.describe) that they follow from. Others are asked for when they are used.
_CAPABILITIES = {
    'supports_attach_interface': 'attach_interface',
    'supports_tagged_attach_interface': 'attach_interface',
    'supports_multiattach': 'attach_volume',
    'supports_tagged_attach_volume': 'attach_volume',
    'supports_extend_volume': 'extend_volume',
}
# What follows from how this driver uses the adapter, whatever is below that.
_ALWAYS = ('has_imagecache', 'supports_evacuate', 'supports_trusted_certs', 'supports_device_tagging')
_IMAGE_FORMATS = ('raw', 'qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx')


def capabilities(described):
    found = dict(driver.ComputeDriver.capabilities)
    found.update({name: True for name in _ALWAYS})
    for name, feature in _CAPABILITIES.items():
        found[name] = bool(described['features'].get(feature))
    for image_format in _IMAGE_FORMATS:
        found[f'supports_image_type_{image_format}'] = image_format in described['image_formats']
    return found


def available_resource(described, resources, node_name):
    cpu = described['cpu']
    return {
        'vcpus': resources['vcpus'],
        'vcpus_used': resources['vcpus_used'],
        'memory_mb': resources['memory_mb'],
        'memory_mb_used': resources['memory_mb_used'],
        'local_gb': resources['disk_gb'],
        'local_gb_used': resources['disk_gb_used'],
        'disk_available_least': resources['disk_available_gb'],
        'hypervisor_type': described['hypervisor_type'],
        'hypervisor_version': described['hypervisor_version'],
        'hypervisor_hostname': node_name,
        'supported_instances': [tuple(entry) for entry in described['guest_types']],
        'cpu_info': json.dumps({'arch': described['architecture'], 'model': cpu['model'], 'vendor': cpu['vendor'],
                                'topology': cpu['topology'], 'features': cpu['features']}),
        'pci_passthrough_devices': json.dumps([]),
        'numa_topology': None,
    }


def update_provider_tree(tree, node_name, answer, reserved_disk_gb):
    """Put an answer of host.inventory into Placement's tree, with the operator's ratios and what is kept back."""
    ratios = driver.ComputeDriver._get_allocation_ratios(tree.data(node_name).inventory)
    reserved = {orc.VCPU: CONF.reserved_host_cpus, orc.MEMORY_MB: CONF.reserved_host_memory_mb,
                orc.DISK_GB: reserved_disk_gb, 'CUSTOM_IDMAP_RANGE': CONF.userns.reserved_id_ranges}
    inventory = {}
    for name, entry in answer['inventory'].items():
        if entry['total'] <= 0:  # Placement takes no empty inventory
            continue
        inventory[name] = {
            'total': entry['total'],
            'min_unit': 1,
            'max_unit': entry.get('max_unit', entry['total']),
            'step_size': 1,
            # Two instances cannot have one range: only what Nova overcommits is.
            'allocation_ratio': ratios.get(name, 1.0),
            'reserved': min(reserved.get(name, 0), entry['total']),
        }
    tree.update_inventory(node_name, inventory)
    # Placement refuses all of an update for one standard trait that it does not know.
    wanted = {trait for trait in answer['traits'] if trait.startswith('CUSTOM_') or hasattr(os_traits, trait)}
    ours = {trait for trait in tree.data(node_name).traits if trait.startswith(_TRAIT_PREFIXES)}
    tree.remove_traits(node_name, *(ours - wanted))
    tree.add_traits(node_name, *wanted)
