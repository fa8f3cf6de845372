"""Links of instances: os-vif makes what is around them, Neutron says when they are connected."""

import contextlib

import os_vif
from os_vif import exception as os_vif_exception
from os_vif.objects import vif as osvif_objects
from oslo_log import log as logging

import nova.conf
from nova import exception
from nova.network import model
from nova.network import os_vif_util

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)


class Vifs:
    def __init__(self, virtapi):
        self._virtapi = virtapi

    def start(self):
        os_vif.initialize()

    def plug(self, instance, network_info):
        for vif in network_info or []:
            with _translated(exception.VirtualInterfacePlugException):
                os_vif.plug(os_vif_util.nova_to_osvif_vif(vif), os_vif_util.nova_to_osvif_instance(instance))

    def unplug(self, instance, network_info):
        """Take away what plug has made. Goes on after a failure, of which the last is raised."""
        failure = None
        for vif in network_info or []:
            try:
                with _translated(exception.VirtualInterfacePlugException):
                    os_vif.unplug(os_vif_util.nova_to_osvif_vif(vif), os_vif_util.nova_to_osvif_instance(instance))
            except exception.NovaException as error:
                failure = error
        if failure:
            raise failure

    @staticmethod
    def have_openvswitch(network_info):
        return any(_is_of_openvswitch(vif) for vif in network_info or [])

    @contextlib.contextmanager
    def plugged(self, instance, network_info, wait=True, is_off=True):
        """Plug, let the instance be started, and wait until Neutron has connected what was not connected before.

        Open vSwitch does not go over to a link that is made again under the name of its port. So the port of an instance that is off
        is made again too, before the link is.

        Raises VirtualInterfaceCreateException when it does not, and the operator wants that to be an error.
        """
        timeout = CONF.vif_plugging_timeout if wait else 0
        names = [('network-vif-plugged', vif['id']) for vif in network_info or []
                 if vif.get('active', True) is False and vif['vnic_type'] != model.VNIC_TYPE_REMOTE_MANAGED] if timeout else []
        is_started = False
        try:
            with self._virtapi.wait_for_instance_event(instance, names, deadline=timeout, error_callback=_failed):
                if is_off:
                    self.unplug(instance, [vif for vif in network_info or [] if _is_of_openvswitch(vif)])
                self.plug(instance, network_info)
                yield
                is_started = True
        except _timeouts():
            if not is_started:  # a limit of somebody else's
                raise
            LOG.warning('Neutron has not connected all ports within %s seconds', timeout, instance=instance)
            if CONF.vif_plugging_is_fatal:
                raise exception.VirtualInterfaceCreateException()


def _is_of_openvswitch(vif):
    return isinstance(os_vif_util.nova_to_osvif_vif(vif), osvif_objects.VIFOpenVSwitch)


def _failed(event_name, instance):
    LOG.error('Neutron reported failure on event %s', event_name, instance=instance)
    if CONF.vif_plugging_is_fatal:
        raise exception.VirtualInterfaceCreateException()


def _timeouts():
    """What wait_for_instance_event raises: one thing of eventlet's, another in releases with native threads."""
    newer = getattr(exception, 'InstanceEventTimeout', None)
    found = (newer,) if newer else ()
    try:
        from eventlet import timeout
    except ImportError:
        return found
    return (timeout.Timeout, *found)


@contextlib.contextmanager
def _translated(kind):
    try:
        yield
    except os_vif_exception.ExceptionBase as error:
        raise kind(str(error)) from error
