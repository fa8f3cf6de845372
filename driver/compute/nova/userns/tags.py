"""Tags of devices, of which the metadata of an instance says what device has them."""

from concurrent import futures
import contextlib
import threading

from nova import objects


def refresh(context, instance, without=None):
    """Put into `instance`, which is not saved here, what Nova's database says of its tags. `without`: the address of a link that is gone."""
    instance.device_metadata = _ask(context, instance.uuid, without)


@contextlib.contextmanager
def refreshed_meanwhile(context, instance):
    """refresh() beside what the block does. These are two questions to Nova's conductor, and a boot is not to wait for them.

    The block's failure is raised, or else that of the questions; a block that fails does not wait for their answers."""
    answer = futures.Future()

    def ask():
        try:
            answer.set_result(_ask(context, instance.uuid))
        except BaseException as error:  # it is raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, name='userns-tags', daemon=True).start()  # a green one under eventlet
    yield
    instance.device_metadata = answer.result()


def _ask(context, uuid, without=None):
    devices = [objects.NetworkInterfaceMetadata(mac=vif.address, tags=[vif.tag])
               for vif in objects.VirtualInterfaceList.get_by_instance_uuid(context, uuid)
               if vif.tag and vif.address != without]
    devices += [_disk(mapping) for mapping in objects.BlockDeviceMappingList.get_by_instance_uuid(context, uuid) if mapping.tag]
    return objects.InstanceDeviceMetadata(devices=devices) if devices else None


def _disk(mapping):
    """The serial is what Nova finds it by when the volume is detached."""
    disk = objects.DiskMetadata(tags=[mapping.tag])
    if mapping.volume_id:
        disk.serial = mapping.volume_id
    if mapping.device_name:
        disk.path = mapping.device_name
    return disk
