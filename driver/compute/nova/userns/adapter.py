"""The client, with Nova's words for what virtuserns-compute answers."""

from nova import exception
import nova.conf
from nova.virt.userns import client

CONF = nova.conf.CONF


class ImageMissing(exception.NovaException):
    """The base is not in the adapter's cache (images.py brings it there)."""
    msg_fmt = 'The image is not in the cache of virtuserns-compute: %(reason)s'


class Busy(exception.ComputeServiceUnavailable):
    """What was asked for waits for something that goes on in the instance."""


def unreachable(error):
    """Nobody answers: for a boot Nova tries another host, for everything else the user may try again."""
    return exception.ComputeServiceUnavailable(str(error), host=CONF.host)


def to_nova(error, instance_uuid=None, image_id=None):
    """The exception to raise instead of a client.AdapterError."""
    make = _BY_KIND.get(error.kind)
    if make is None:
        return exception.NovaException(f'{error.method}: {error.message}')
    return make(error, instance_uuid, image_id)


# One line for each kind of docs/compute-api.md that Nova has a word for.
_BY_KIND = {
    'instance-not-found': lambda error, uuid, image: exception.InstanceNotFound(instance_id=uuid),
    'instance-exists': lambda error, uuid, image: exception.InstanceExists(name=uuid),
    'invalid-state': lambda error, uuid, image: exception.InstanceInvalidState(
        error.message, instance_uuid=uuid, attr='power_state', state='another', method=error.method),
    'unsupported': lambda error, uuid, image: NotImplementedError(f'{error.method}: {error.message}'),
    'invalid': lambda error, uuid, image: exception.InvalidInput(reason=error.message),
    'image-missing': lambda error, uuid, image: ImageMissing(reason=error.message),
    'image-refused': lambda error, uuid, image: exception.ImageUnacceptable(image_id=image, reason=error.message),
    # As of libvirt's driver: no other host is tried, because the flavor is the same there.
    'image-too-large': lambda error, uuid, image: exception.FlavorDiskSmallerThanImage(error.message),
    'no-space': lambda error, uuid, image: exception.ComputeResourcesUnavailable(reason=error.message),
    'device-not-found': lambda error, uuid, image: exception.DeviceNotFound(error.message, device=''),
    'busy': lambda error, uuid, image: Busy(error.message, host=CONF.host),
    'unavailable': lambda error, uuid, image: exception.ComputeServiceUnavailable(error.message, host=CONF.host),
}


class Adapter:
    """What the parts of the driver speak to the adapter through. Raises exceptions of Nova's only."""

    def __init__(self):
        self._client = client.Client(CONF.userns.socket, CONF.userns.request_timeout, CONF.userns.reconnect_timeout)

    def call(self, method, **params):
        return self._call(method, None, params)

    def call_long(self, method, **params):
        """For what copies images or disks, and may take as long as that takes."""
        return self._call(method, CONF.userns.long_request_timeout, params)

    def connect(self):
        return self._client.connect()

    def check_version(self):
        try:
            return self._client.check_version()
        except client.AdapterUnreachable as error:
            raise unreachable(error) from error

    def close(self):
        self._client.close()

    def _call(self, method, timeout, params):
        try:
            return self._client.call(method, params, timeout)
        except client.AdapterUnreachable as error:
            raise unreachable(error) from error
        except client.AdapterError as error:
            uuid = params.get('uuid') or params.get('instance', {}).get('uuid')
            raise to_nova(error, uuid, (params.get('image') or {}).get('key') or params.get('key')) from error
