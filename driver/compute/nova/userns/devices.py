"""What the metadata of an instance say of those of its devices that have tags: by them it finds the one that was meant."""

from nova import objects


def note(context, instance):
    """Keep it with the instance, for the metadata service and the config drive."""
    found = _disks(context, instance) + _interfaces(context, instance)
    if not found and not instance.device_metadata:
        return
    instance.device_metadata = objects.InstanceDeviceMetadata(devices=found)
    instance.save()


def _disks(context, instance):
    volumes = objects.BlockDeviceMappingList.get_by_instance_uuid(context, instance.uuid)
    return [objects.DiskMetadata(tags=[volume.tag], path=volume.device_name or '', serial=volume.volume_id or '')
            for volume in volumes if volume.tag]


def _interfaces(context, instance):
    links = objects.VirtualInterfaceList.get_by_instance_uuid(context, instance.uuid)
    return [objects.NetworkInterfaceMetadata(tags=[link.tag], mac=link.address)
            for link in links if 'tag' in link and link.tag]
