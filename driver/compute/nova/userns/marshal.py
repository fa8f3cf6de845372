"""Nova's objects as the structures of docs/compute-api.md, and back. Nothing here asks anybody."""

import base64
import json

from nova.compute import power_state
from nova import exception
from nova.network import os_vif_util
from nova.objects import diagnostics
from nova.virt import event as virtevent

# Where an instance keeps its id range: the database takes it along to another host, and over a rebuild.
IDS_KEY = 'userns_idmap'
ANY_SIZE = 0  # of an image, as `max_mb`
_IMAGE_PREFIX = 'image_'

# A container whose init died is one that is shut down: Nova acts upon the event STOPPED only when get_info agrees.
POWER_STATES = {
    'running': power_state.RUNNING,
    'paused': power_state.PAUSED,
    'shutdown': power_state.SHUTDOWN,
    'crashed': power_state.SHUTDOWN,
    'suspended': power_state.SUSPENDED,
    'nostate': power_state.NOSTATE,
}

TRANSITIONS = {
    'started': virtevent.EVENT_LIFECYCLE_STARTED,
    'stopped': virtevent.EVENT_LIFECYCLE_STOPPED,
    'crashed': virtevent.EVENT_LIFECYCLE_STOPPED,
    'paused': virtevent.EVENT_LIFECYCLE_PAUSED,
    'resumed': virtevent.EVENT_LIFECYCLE_RESUMED,
    'suspended': virtevent.EVENT_LIFECYCLE_SUSPENDED,
}


def flavor(nova_flavor):
    return {
        'vcpus': nova_flavor.vcpus,
        'memory_mb': nova_flavor.memory_mb,
        'root_gb': nova_flavor.root_gb,
        'ephemeral_gb': nova_flavor.ephemeral_gb,
        'swap_mb': nova_flavor.swap,
        'extra_specs': dict(nova_flavor.extra_specs) if nova_flavor.obj_attr_is_set('extra_specs') else {},
    }


def max_image_mb(nova_instance, image_id):
    """What an image may take that it is made of or rescued by; None: its flavor does not say, as Nova means a disk of 0."""
    if image_id and nova_instance.system_metadata.get('shelved_image_id') == image_id:
        return ANY_SIZE  # with what it had written it may be larger than its disk; that it has it back counts more
    return nova_instance.flavor.root_gb * 1024 or None


def instance(nova_instance):
    """image_properties: ImageMeta drops properties that Nova does not know; system metadata has them all."""
    metadata = nova_instance.system_metadata
    return {
        'uuid': nova_instance.uuid,
        'name': nova_instance.name,
        'hostname': nova_instance.hostname or '',
        'project': nova_instance.project_id or '',
        'user': nova_instance.user_id or '',
        'display_name': nova_instance.display_name or '',
        'flavor': flavor(nova_instance.flavor),
        'image_properties': {key[len(_IMAGE_PREFIX):]: value for key, value in metadata.items()
                             if key.startswith(_IMAGE_PREFIX + 'userns_')},
        'ids': ids(nova_instance),
    }


def ids(nova_instance):
    text = nova_instance.system_metadata.get(IDS_KEY)
    return json.loads(text) if text else None


def note_ids(nova_instance, chosen):
    """Keep the range that the adapter chose. Whoever calls the driver saves the instance afterwards: once is 20 ms.
    Of other guests than containers it chooses none."""
    if chosen is None:
        return
    text = json.dumps({'first': chosen['first'], 'count': chosen['count']})
    if nova_instance.system_metadata.get(IDS_KEY) != text:
        nova_instance.system_metadata[IDS_KEY] = text


def vif(nova_vif):
    kind, bridge, device = _backend(nova_vif)
    network = nova_vif['network']
    return {
        'id': nova_vif['id'],
        'mac': nova_vif['address'],
        'type': kind,
        'bridge': bridge,
        'device': device,
        'mtu': network.get_meta('mtu'),
        'active': bool(nova_vif.get('active')),
        'ips': [{'address': ip['address'], 'prefix': int(subnet['cidr'].split('/')[1])}
                for subnet in network['subnets'] for ip in subnet['ips']],
        'routes': [route for subnet in network['subnets'] for route in _routes(subnet)],
        'dns': [server['address'] for subnet in network['subnets'] for server in subnet['dns']],
    }


def network(network_info):
    return [vif(nova_vif) for nova_vif in network_info or []]


def _backend(nova_vif):
    """What of Nova's many kinds of links a container's end can be: a bridge's port, or one of Open vSwitch's."""
    obj = os_vif_util.nova_to_osvif_vif(nova_vif)
    name = type(obj).__name__
    if name == 'VIFBridge':
        return 'bridge', obj.bridge_name, obj.vif_name
    if name == 'VIFOpenVSwitch':
        return 'ovs', obj.bridge_name, obj.vif_name
    raise exception.VirtualInterfacePlugException(
        f"port {nova_vif['id']}: a container has no interface of type '{nova_vif['type']}' "
        f"(vnic_type '{nova_vif.get('vnic_type')}'); bind it by the bridge or Open vSwitch mechanism")


def _routes(subnet):
    gateway = (subnet['gateway'] or {}).get('address')
    if gateway:
        yield {'to': '0.0.0.0/0' if subnet['version'] == 4 else '::/0', 'via': gateway}
    for route in subnet['routes']:
        yield {'to': route['cidr'], 'via': route['gateway']['address']}


def volume(connection_info, device, path, boot_index=None):
    """A volume whose device of this host is known."""
    return {
        'device': device,
        'path': path,
        'readonly': (connection_info.get('data') or {}).get('access_mode') == 'ro',
        'boot_index': boot_index,
        'shared': bool(connection_info.get('multiattach')),
        'serial': connection_info.get('serial') or (connection_info.get('data') or {}).get('volume_id') or '',
    }


def files(pairs, mode=0o644):
    """(path, text or bytes) as Nova has them."""
    return [{'path': path, 'content': _base64(content), 'mode': mode} for path, content in pairs or []]


def _base64(content):
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def snapshot_metadata(nova_instance, name, disk_format):
    """What Glance is told of an image that was made of an instance."""
    return {
        'status': 'active', 'name': name, 'disk_format': disk_format, 'container_format': 'bare',
        'properties': {'image_location': 'snapshot', 'image_state': 'available', 'owner_id': nova_instance.project_id},
    }


def diagnostics_object(answer):
    found = diagnostics.Diagnostics(
        state=power_state.STATE_MAP[POWER_STATES[answer['state']]],
        driver='libvirt', hypervisor=answer['hypervisor'], hypervisor_os=answer['hypervisor_os'],
        uptime=answer['uptime_s'], config_drive=answer['config_drive'])
    found.memory_details = diagnostics.MemoryDiagnostics(maximum=answer['memory']['maximum_mb'],
                                                         used=answer['memory']['used_mb'])
    for cpu in answer['cpus']:
        found.add_cpu(id=cpu['id'], time=cpu['time_ns'], utilisation=cpu['utilisation'])
    for nic in answer['nics']:
        found.add_nic(mac_address=nic['mac'], **{key: nic.get(key) for key in _NIC_COUNTERS})
    for disk in answer['disks']:
        found.add_disk(**{key: disk.get(key) for key in _DISK_COUNTERS})
    return found


_NIC_COUNTERS = [f'{way}_{what}' for way in ('rx', 'tx') for what in ('octets', 'packets', 'drop', 'errors')]
_DISK_COUNTERS = ['read_bytes', 'read_requests', 'write_bytes', 'write_requests', 'errors_count']


def uptime(answer):
    """A line as of uptime(1), which is what Nova's interface is used to."""
    days, rest = divmod(int(answer['seconds']), 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    load = ', '.join(f'{value:.2f}' for value in answer['load'])
    return f" up {days} days, {hours:2d}:{minutes:02d},  {answer['users']} users,  load average: {load}"
