"""Tags of devices, of which the metadata of an instance says what device has them."""

from concurrent import futures
import contextlib
import threading

from nova import objects


def refresh(context, instance, without=None):
    """Put into `instance`, which is not saved here, what Nova's database says of its tags. `without`: the address of a link that is gone."""
    instance.device_metadata = _ask(context, instance.uuid, without)


@contextlib.contextmanager
def refreshed_meanwhile(context, instance, has_links, block_device_info):
    """refresh() beside what the block does, of a boot. These are questions to Nova's conductor, and a boot is not to wait for them, nor
    to ask what it has been told: it has no links, or what disks.

    The block's failure is raised, or else that of the questions; a block that fails does not wait for their answers."""
    links, mappings = None if has_links else [], _mappings_in(block_device_info)
    if links is not None and mappings is not None:
        yield
        instance.device_metadata = _tagged(links, mappings)
        return
    answer = futures.Future()

    def ask():
        try:
            answer.set_result(_ask(context, instance.uuid, links=links, mappings=mappings))
        except BaseException as error:  # it is raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, name='userns-tags', daemon=True).start()  # a green one under eventlet
    yield
    instance.device_metadata = answer.result()


def _mappings_in(block_device_info):
    """Nova's own, of all disks; None: it does not say them all."""
    info = block_device_info or {}
    entries = [*(info.get('image') or []), *(info.get('ephemerals') or []), *(info.get('block_device_mapping') or []), info.get('swap')]
    found = [getattr(entry, '_bdm_obj', None) for entry in entries if entry]
    return found if 'image' in info and None not in found else None


def _ask(context, uuid, without=None, links=None, mappings=None):
    if links is None:
        links = [vif for vif in objects.VirtualInterfaceList.get_by_instance_uuid(context, uuid) if vif.address != without]
    if mappings is None:
        mappings = objects.BlockDeviceMappingList.get_by_instance_uuid(context, uuid)
    return _tagged(links, mappings)


def _tagged(links, mappings):
    devices = [objects.NetworkInterfaceMetadata(mac=vif.address, tags=[vif.tag]) for vif in links if vif.tag]
    devices += [_disk(mapping) for mapping in mappings if mapping.tag]
    return objects.InstanceDeviceMetadata(devices=devices) if devices else None


def _disk(mapping):
    """The serial is what Nova finds it by when the volume is detached."""
    disk = objects.DiskMetadata(tags=[mapping.tag])
    if mapping.volume_id:
        disk.serial = mapping.volume_id
    if mapping.device_name:
        disk.path = mapping.device_name
    return disk
