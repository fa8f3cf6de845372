"""Tags of devices, of which the metadata of an instance says what device has them."""

from nova import objects


def refresh(context, instance, without=None):
    """Put into `instance`, which is not saved here, what Nova's database says of its tags. `without`: the address of a link that is gone."""
    devices = [objects.NetworkInterfaceMetadata(mac=vif.address, tags=[vif.tag])
               for vif in objects.VirtualInterfaceList.get_by_instance_uuid(context, instance.uuid)
               if vif.tag and vif.address != without]
    devices += [_disk(mapping) for mapping in objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
                if mapping.tag]
    instance.device_metadata = objects.InstanceDeviceMetadata(devices=devices) if devices else None


def _disk(mapping):
    """The serial is what Nova finds it by when the volume is detached."""
    disk = objects.DiskMetadata(tags=[mapping.tag])
    if mapping.volume_id:
        disk.serial = mapping.volume_id
    if mapping.device_name:
        disk.path = mapping.device_name
    return disk
