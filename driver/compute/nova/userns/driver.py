"""UsernsDriver: every call of Nova's is a request to virtuserns-compute, and what has to be around it."""

import base64
import contextlib

from oslo_log import log as logging
from oslo_utils import excutils

from nova.api.metadata import base as instance_metadata
from nova.compute import task_states
import nova.conf
from nova.console import type as console_type
from nova import exception
from nova.virt import configdrive
from nova.virt import driver
from nova.virt import hardware
from nova.virt.userns import adapter
from nova.virt.userns import conf
from nova.virt.userns import events
from nova.virt.userns import host
from nova.virt.userns import images
from nova.virt.userns import lost
from nova.virt.userns import marshal
from nova.virt.userns import migrate
from nova.virt.userns import tags
from nova.virt.userns import vif as userns_vif
from nova.virt.userns import volumes

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
conf.register()

_CONSOLE_BYTES = 100 * 1024


class UsernsDriver(migrate.Migrations, driver.ComputeDriver):
    """Methods take arguments that newer releases add (share_info, ...) as **kwargs: none of them is for containers.

    What is not here raises NotImplementedError, as in the base class, and Nova says so to the user.
    """

    capabilities = dict(driver.ComputeDriver.capabilities)

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi)
        self._adapter = adapter.Adapter()
        self._images = images.Images(self._adapter)
        self._vifs = userns_vif.Vifs(virtapi)
        self._events = events.Events(self._adapter, self.emit_event)
        self._lost = lost.LostRequests(self)
        self._described = None

    # ---- the service and its host

    def init_host(self, host):
        version = self._adapter.check_version()
        self._vifs.start()
        self._lost.start(host)
        images.clear_spool()
        described = self._describe()
        self._events.start()
        LOG.info('virtuserns-compute (interface %(version)s) offers %(uri)s', {'version': version, 'uri': described['uri']})

    def cleanup_host(self, host):
        self._lost.stop()
        self._events.stop()
        self._adapter.close()

    def get_available_nodes(self, refresh=False):
        return [CONF.userns.node_name or self._describe()['hostname']]

    def get_nodenames_by_uuid(self, refresh=False):
        return {_local_node_uuid(): self.get_available_nodes(refresh)[0]}

    def get_available_resource(self, nodename):
        # Asked anew each time: the adapter may have been upgraded, and the host changed.
        found = host.available_resource(self._describe(anew=True), self._adapter.call('host.resources'), nodename)
        node_uuid = _local_node_uuid()
        if node_uuid:
            found['uuid'] = node_uuid
        return found

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        host.update_provider_tree(provider_tree, nodename, self._adapter.call('host.inventory'),
                                  self._get_reserved_host_disk_gb_from_config())

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        return marshal.uptime(self._adapter.call('host.uptime'))

    def get_host_cpu_stats(self):
        return self._adapter.call('host.cpu_stats')

    def get_volume_connector(self, instance):
        return volumes.properties()

    def _describe(self, anew=False):
        if anew or self._described is None:
            self._described = self._adapter.call('host.describe')
            self.capabilities = host.capabilities(self._described)
        return self._described

    # ---- instances

    def get_info(self, instance, use_cache=True):
        answer = self._adapter.call('instance.info', uuid=instance.uuid)
        return hardware.InstanceInfo(state=marshal.POWER_STATES[answer['state']], internal_id=answer['id'])

    def note_ids(self, instance):
        """Those that it has here, in its system metadata; whoever calls saves it."""
        marshal.note_ids(instance, self._adapter.call('instance.info', uuid=instance.uuid)['ids'])

    def list_instances(self):
        return [entry['name'] for entry in self._adapter.call('instance.list')]

    def instance_exists(self, instance):
        return any(entry['uuid'] == instance.uuid for entry in self._adapter.call('instance.list'))

    def list_instance_uuids(self):
        """With those that have left something: Nova has what it knows to be deleted destroyed (running_deleted_instance_action)."""
        return [entry['uuid'] for method in ('instance.list', 'instance.remains') for entry in self._adapter.call(method)]

    def spawn(self, context, instance, image_meta, injected_files, admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None, **kwargs):
        with self._cleaning_up(context, instance, network_info, block_device_info), self._events.spawning(instance.uuid):
            connected = volumes.connect_all(block_device_info)
            network = marshal.network(network_info)  # Nova allocates it meanwhile: this waits for it, and for its tags
            tagged = tags.refreshed_meanwhile(context, instance, bool(network), block_device_info)
            if configdrive.required_by(instance):  # which says them
                tags.refresh(context, instance)
                tagged = contextlib.nullcontext()
            drive = self._config_drive(context, instance, injected_files, admin_password, network_info)
            image_id = _image_id(image_meta, connected)
            most = marshal.max_image_mb(instance, image_id)
            with tagged, self._vifs.plugged(instance, network_info, wait=power_on):
                try:
                    answer = self._images.using(
                        context, image_id, instance.trusted_certs, most,
                        lambda image: self._adapter.call_long(
                            'instance.spawn', instance=marshal.instance(instance), image=image,
                            network=network, volumes=connected, files=marshal.files(injected_files),
                            config_drive=drive, password=_password(admin_password), power=power_on,
                            **({'max_mb': most} if most == marshal.ANY_SIZE else {})))
                except NotImplementedError as error:  # Nova would try other hosts until none is left, and say that
                    raise exception.InvalidInput(reason=str(error)) from error
        marshal.note_ids(instance, answer['ids'])

    def destroy(self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True,
                **kwargs):
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def cleanup(self, context, instance, network_info, block_device_info=None, destroy_disks=True, migrate_data=None,
                destroy_vifs=True, destroy_secrets=True, **kwargs):
        self._remove(instance, disks=destroy_disks, rebuild=_is_rebuilt_here(instance),
                     revert=instance.task_state == task_states.RESIZE_REVERTING)
        if destroy_vifs:
            self._unplug_all(instance, network_info)
        volumes.disconnect_all(block_device_info)

    def remove_arrival(self, instance, network_info, block_device_info):
        """What was made here of one that is another host's still. Not a disk that is kept of it since it was moved away."""
        self._remove(instance, disks=True, rebuild=False, revert=True)
        self._unplug_all(instance, network_info)
        volumes.disconnect_all(block_device_info)

    def _remove(self, instance, **how):
        try:
            self._adapter.call_long('instance.destroy', uuid=instance.uuid, **how)
        except exception.InstanceNotFound:
            LOG.warning('The instance was gone already', instance=instance)

    @contextlib.contextmanager
    def _cleaning_up(self, context, instance, network_info, block_device_info, destroy=True):
        """What fails in here leaves nothing on this host. But an instance that was there is not touched."""
        try:
            yield
        except exception.InstanceExists:
            raise
        except BaseException:  # eventlet's timeouts as well
            with excutils.save_and_reraise_exception():
                try:
                    if destroy:
                        self.destroy(context, instance, network_info, block_device_info)
                    else:
                        self._unplug_all(instance, network_info)
                        volumes.disconnect_all(block_device_info)
                except Exception as error:
                    LOG.warning('The instance may have left something: %s', error, instance=instance)

    def _unplug_all(self, instance, network_info):
        try:
            self._vifs.unplug(instance, network_info)
        except exception.NovaException as error:
            LOG.warning('Not all links are unplugged: %s', error, instance=instance)

    def delete_instance_files(self, instance):
        self._adapter.call_long('instance.destroy', uuid=instance.uuid, disks=True, rebuild=False, revert=False)
        return True

    # ---- power

    def power_off(self, instance, timeout=0, retry_interval=0, **kwargs):
        # The answer comes when init has ended, or had to be.
        try:
            self._adapter.call_long('instance.power_off', uuid=instance.uuid, timeout=timeout, retry_interval=retry_interval)
        except exception.InstanceNotFound:  # a rebuild that failed has left nothing; the next one begins here, and would never end
            LOG.warning('The instance was gone already', instance=instance)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None, **kwargs):
        self._connected('instance.power_on', instance, network_info, block_device_info)

    def reboot(self, context, instance, network_info, reboot_type, block_device_info=None, bad_volumes_callback=None,
               accel_info=None, **kwargs):
        if self._vifs.have_openvswitch(network_info):
            # Its ports have to be made again between the old links and the new ones.
            self.power_off(instance, CONF.shutdown_timeout if reboot_type == 'SOFT' else 0)
        elif reboot_type == 'SOFT':
            try:
                self._connected('instance.reboot', instance, network_info, block_device_info, is_off=False, type='soft')
                return
            except (exception.InstanceInvalidState, NotImplementedError) as error:
                LOG.warning('No soft reboot, so a hard one: %s', error, instance=instance)
        self._connected('instance.reboot', instance, network_info, block_device_info, type='hard')

    def pause(self, instance):
        self._adapter.call('instance.pause', uuid=instance.uuid)

    def unpause(self, instance):
        self._adapter.call('instance.unpause', uuid=instance.uuid)

    def suspend(self, context, instance):
        self._adapter.call_long('instance.suspend', uuid=instance.uuid)

    def resume(self, context, instance, network_info, block_device_info=None, **kwargs):
        self._connected('instance.resume', instance, network_info, block_device_info, is_off=False)

    def resume_state_on_host_boot(self, context, instance, network_info, *args, **kwargs):
        """Newer releases have share_info before block_device_info."""
        found = [value for value in (*args, *kwargs.values()) if isinstance(value, dict) and 'block_device_mapping' in value]
        state = self._adapter.call('instance.info', uuid=instance.uuid)['state']
        if state in ('shutdown', 'crashed'):
            self.power_on(context, instance, network_info, found[0] if found else None)

    def poll_rebooting_instances(self, timeout, instances):
        """A reboot is one request, which ends."""

    def _connected(self, method, instance, network_info, block_device_info, is_off=True, **params):
        """A request that starts the instance, with its links plugged and its volumes connected."""
        connected = volumes.connect_all(block_device_info)
        with self._vifs.plugged(instance, network_info, is_off=is_off):
            return self._adapter.call_long(method, uuid=instance.uuid, network=marshal.network(network_info),
                                           volumes=connected, **params)

    # ---- rescue, snapshots, the image cache

    def rescue(self, context, instance, network_info, image_meta, rescue_password, block_device_info, *args, **kwargs):
        connected = volumes.connect_all(block_device_info)
        drive = self._config_drive(context, instance, [], rescue_password, network_info)
        with self._vifs.plugged(instance, network_info):
            self._images.using(
                context, image_meta.id, instance.trusted_certs, marshal.max_image_mb(instance, image_meta.id),
                lambda image: self._adapter.call_long(
                    'instance.rescue', uuid=instance.uuid, image=image, network=marshal.network(network_info),
                    volumes=connected, files=[], config_drive=drive, password=rescue_password))

    def unrescue(self, context, instance, *args, **kwargs):
        network_info = instance.get_network_info()
        if self._vifs.have_openvswitch(network_info):
            self.power_off(instance)
        with self._vifs.plugged(instance, network_info, wait=False):
            self._adapter.call_long('instance.unrescue', uuid=instance.uuid)

    def snapshot(self, context, instance, image_id, update_task_state):
        record = self._images.describe(context, image_id)
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        with images.spool_file() as path:
            answer = self._adapter.call_long('instance.snapshot', uuid=instance.uuid, path=path)
            update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
            self._images.upload(context, image_id, marshal.snapshot_metadata(instance, record['name'], answer['format']), path)

    def manage_image_cache(self, context, all_instances):
        if CONF.image_cache.remove_unused_base_images:
            self._images.sweep()

    def cache_image(self, context, image_id):
        return self._images.ensure(context, image_id)

    def _config_drive(self, context, instance, injected_files, admin_password, network_info):
        if not configdrive.required_by(instance):
            return []
        metadata = instance_metadata.InstanceMetadata(
            instance, content=injected_files, network_info=network_info,
            extra_md={'admin_pass': admin_password} if admin_password else {})
        return marshal.files(metadata.metadata_for_config_drive())

    # ---- devices

    def attach_interface(self, context, instance, image_meta, vif):
        self._vifs.plug(instance, [vif])
        try:
            self._refusable('instance.attach_interface', instance, vif=marshal.vif(vif))
        except Exception:
            with excutils.save_and_reraise_exception():
                self._unplug_all(instance, [vif])
        tags.refresh(context, instance)
        instance.save()

    def detach_interface(self, context, instance, vif):
        try:
            self._refusable('instance.detach_interface', instance, vif=marshal.vif(vif))
        except exception.DeviceNotFound:
            LOG.warning('Interface %s was gone already', vif['address'], instance=instance)
        self._vifs.unplug(instance, [vif])
        tags.refresh(context, instance, without=vif['address'])
        instance.save()

    def plug_vifs(self, instance, network_info):
        self._vifs.plug(instance, network_info)

    def unplug_vifs(self, instance, network_info):
        self._vifs.unplug(instance, network_info)

    def attach_volume(self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None,
                      encryption=None, **kwargs):
        volume = volumes.connect(connection_info, mountpoint, encryption=encryption)
        try:
            self._refusable('instance.attach_volume', instance, volume=volume)
        except Exception:
            with excutils.save_and_reraise_exception():
                volumes.disconnect(connection_info)
        tags.refresh(context, instance)
        instance.save()

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None, **kwargs):
        try:
            self._refusable('instance.detach_volume', instance, volume=volumes.as_connected(connection_info, mountpoint))
        except (exception.DeviceNotFound, exception.InstanceNotFound) as error:
            LOG.warning('Volume at %(device)s was gone already: %(error)s', {'device': mountpoint, 'error': error},
                        instance=instance)
        except adapter.Busy as error:
            raise exception.DeviceDetachFailed(device=mountpoint, reason=str(error)) from error
        volumes.disconnect(connection_info)

    def swap_volume(self, context, old_connection_info, new_connection_info, instance, mountpoint, resize_to):
        before = volumes.as_connected(old_connection_info, mountpoint)
        following = volumes.connect(new_connection_info, mountpoint)
        try:
            self._refusable('instance.swap_volume', instance, long=True, volume=before, next=following)
        except Exception:
            with excutils.save_and_reraise_exception():
                volumes.disconnect(new_connection_info)
        volumes.disconnect(old_connection_info)

    def extend_volume(self, context, connection_info, instance, requested_size):
        self._refusable('instance.extend_volume', instance, volume=volumes.extend(connection_info, ''))

    def _refusable(self, method, instance, long=False, **params):
        """Nova expects its own exceptions of changes to devices. `long`: disks are copied."""
        call = self._adapter.call_long if long else self._adapter.call
        try:
            call(method, uuid=instance.uuid, **params)
        except NotImplementedError as error:
            raise exception.NovaException(str(error)) from error

    # ---- looking inside

    def get_console_output(self, context, instance):
        return base64.b64decode(self._adapter.call('instance.console_output', uuid=instance.uuid,
                                                   bytes=_CONSOLE_BYTES)['data'])

    def get_serial_console(self, context, instance):
        answer = self._adapter.call('instance.serial_console', uuid=instance.uuid)
        return console_type.ConsoleSerial(host=answer['host'], port=answer['port'])

    def get_diagnostics(self, instance):
        return self._adapter.call('instance.diagnostics', uuid=instance.uuid)

    def get_instance_diagnostics(self, instance):
        return marshal.diagnostics_object(self.get_diagnostics(instance))

    def set_admin_password(self, instance, new_pass):
        user = instance.image_meta.properties.get('os_admin_user') or 'root'
        self._adapter.call('instance.set_password', uuid=instance.uuid, user=user, password=new_pass)

    def trigger_crash_dump(self, instance):
        try:
            self._adapter.call_long('instance.crash_dump', uuid=instance.uuid)
        except NotImplementedError:
            raise exception.TriggerCrashDumpNotSupported()

    def quiesce(self, context, instance, image_meta):
        self._quiesce('instance.quiesce', instance)

    def unquiesce(self, context, instance, image_meta):
        self._quiesce('instance.unquiesce', instance)

    def _quiesce(self, method, instance):
        try:
            self._adapter.call(method, uuid=instance.uuid)
        except NotImplementedError:
            raise exception.InstanceQuiesceNotSupported(instance_id=instance.uuid)


def _is_rebuilt_here(instance):
    """Nobody else shall get its ids before it is made again."""
    return instance.task_state == task_states.REBUILDING and instance.host == CONF.host


def _image_id(image_meta, connected):
    """None where a volume is the root."""
    return None if any(volume['boot_index'] == 0 for volume in connected) else image_meta.id


def _password(admin_password):
    return admin_password if admin_password and CONF.userns.inject_password else None


def _local_node_uuid():
    """The identity that newer releases give a node; None where there is none yet."""
    try:
        from nova.virt import node
    except ImportError:
        return None
    return node.get_local_node_uuid()
