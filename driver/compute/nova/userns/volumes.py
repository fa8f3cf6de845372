"""Volumes: os-brick makes them block devices of this host, by whatever transport."""

from os_brick import exception as brick_exception
from os_brick.initiator import connector
from oslo_log import log as logging

import nova.conf
from nova import exception
from nova import utils
from nova.virt import driver
from nova.virt.userns import marshal

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

# Transports of os-brick's that end in a block device of the host.
_BLOCK = ('iscsi', 'iser', 'fibre_channel', 'nvmeof', 'local')


def properties():
    """What Cinder has to know of this host."""
    return connector.get_connector_properties(utils.get_root_helper(), CONF.my_block_storage_ip,
                                              CONF.userns.volume_use_multipath, enforce_multipath=True, host=CONF.host)


def connect(connection_info, device, boot_index=None, encryption=None):
    """The structure `volume` of one that is connected now. One that was stays as it is."""
    if encryption:
        raise exception.VolumeEncryptionNotSupported(volume_type=connection_info.get('driver_volume_type'),
                                                     volume_id=connection_info.get('serial'))
    data = connection_info['data']
    try:
        data['device_path'] = _connector(connection_info).connect_volume(data)['path']
    except brick_exception.BrickException as error:
        # os-brick says no more than that no device came; why, a login that was refused as well, is in the log alone.
        serial, transport = connection_info.get('serial'), connection_info['driver_volume_type']
        raise exception.DiskNotFound(f'volume {serial}: no device by {transport}: {error} (the log of nova-compute on {CONF.host} '
                                     'says why)') from error
    return marshal.volume(connection_info, device, _text(data['device_path']), boot_index)


def disconnect(connection_info):
    try:
        _connector(connection_info).disconnect_volume(connection_info['data'], None)
    except brick_exception.VolumeDeviceNotFound as error:
        LOG.warning('A volume is gone already: %s', error)


def extend(connection_info, device):
    try:
        _connector(connection_info).extend_volume(connection_info['data'])
    except NotImplementedError:
        LOG.debug('Volumes of type %s need not be looked for again', connection_info['driver_volume_type'])
    return as_connected(connection_info, device)


def as_connected(connection_info, device):
    """The structure `volume` of one that was connected earlier."""
    return marshal.volume(connection_info, device, _text(connection_info['data'].get('device_path', '')))


def connect_all(block_device_info):
    """All or none."""
    done = []
    try:
        for entry in driver.block_device_info_get_mapping(block_device_info):
            volume = connect(entry['connection_info'], entry['mount_device'], entry.get('boot_index'))
            done.append((entry, volume))
    except Exception:
        for entry, _ in done:
            _try_disconnect(entry['connection_info'])
        raise
    return [volume for _, volume in done]


def disconnect_all(block_device_info):
    """Goes on after a failure: what is to be removed has to be."""
    for entry in driver.block_device_info_get_mapping(block_device_info):
        _try_disconnect(entry['connection_info'])


def _try_disconnect(connection_info):
    try:
        disconnect(connection_info)
    except Exception as error:
        LOG.warning('Volume %(volume)s is not disconnected: %(error)s',
                    {'volume': connection_info.get('serial'), 'error': error})


def _connector(connection_info):
    transport = connection_info['driver_volume_type']
    if transport not in _BLOCK:
        raise exception.VolumeDriverNotFound(driver_type=transport)
    return connector.InitiatorConnector.factory(transport, utils.get_root_helper(),
                                                use_multipath=CONF.userns.volume_use_multipath,
                                                device_scan_attempts=CONF.userns.num_volume_scan_tries)


def _text(path):
    return path.decode() if isinstance(path, bytes) else path
