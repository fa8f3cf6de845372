#!/usr/bin/python3
"""Path A: Nova's own libvirt driver, unmodified, with virt_type=lxc, against virtusernsd."""
import suite

CONF = """[DEFAULT]
compute_driver = libvirt.LibvirtDriver
[libvirt]
virt_type = lxc
connection_uri = {uri}
images_type = raw
snapshot_image_format = raw
"""

# What Nova's driver does of itself for virt_type=lxc, whoever is behind it; and what our daemon has not got.
NOT_MOVED = ("a file from before: got 'missing'", "Nova's driver copies the <disk> devices of a domain, and a container has none: on the other "
             "host it begins again from its image. A revert finds its data again")
NO_SAVE = ("virDomainManagedSave", "Nova's driver asks libvirt to save the memory in a file (virDomainManagedSave), which containers of "
           "virtuserns have not got; pause does what can be done")
REFUSALS = {
    "suspend": NO_SAVE,
    "resume": NO_SAVE,
    "rescue": ("exec '/sbin/init': No such file or directory", "Nova's driver starts the container without mounting the image of the rescue"),
    "resize-and-confirm": NOT_MOVED,
    "cold-migrate": NOT_MOVED,
    "live-migrate": ("the migration's status is '(error|failed)'", "virDomainMigrate: containers of virtuserns cannot be moved while they run"),
    "change-password": ("Set admin password is not supported", "Nova's driver does it for qemu and kvm only"),
    "config-drive": ("the files of the config drive are somewhere inside", "Nova's driver makes the image and gives containers none"),
    "crash-dump": ("Triggering crash dump is not supported", "it is an interrupt of a virtual machine"),
    "serial-console": ("Unavailable console type serial", "Nova's driver has serial consoles of qemu and kvm only"),
    "inject-a-file": ("the file inside: got 'missing'", "Nova's driver writes files into disks of virtual machines only"),
    "disk-rate-limit": ("a limit for its disk", "Nova's driver limits <disk> devices, and a container has none"),
    "reboot-a-host": ("501: ", "Nova's driver has no host_power_action"),
    "cpu-traits": ("no trait of the processor is reported", "Nova's driver reports them for qemu and kvm only"),
}


def start_hosts(cloud):
    for name in ("host1", "host2"):
        cloud.host(name).start_ssh()
        cloud.start_compute(name, CONF)


if __name__ == "__main__":
    suite.main(suite.Path("A", start_hosts, REFUSALS))
