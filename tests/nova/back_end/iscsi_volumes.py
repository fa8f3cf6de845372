"""The same files, exported over iSCSI by Cinder's own helper for tgt: names, accounts and portals are Cinder's to choose."""
from cinder import interface
from cinder.volume.targets import tgt
from loop_volumes import LoopDriver


@interface.volumedriver
class IscsiDriver(LoopDriver):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.target_driver = tgt.TgtAdm(configuration=self.configuration, executor=self._execute)

    def create_export(self, context, volume, connector):
        made = self.target_driver.create_export(context, volume, str(self.path(volume)))
        return {"provider_location": made["location"], "provider_auth": made["auth"]}

    def ensure_export(self, context, volume):
        self.target_driver.ensure_export(context, volume, str(self.path(volume)))

    def remove_export(self, context, volume):
        self.target_driver.remove_export(context, volume)

    def initialize_connection(self, volume, connector):
        return self.target_driver.initialize_connection(volume, connector)

    def terminate_connection(self, volume, connector, **kwargs):
        return self.target_driver.terminate_connection(volume, connector, **kwargs)

    def _update_volume_stats(self):
        super()._update_volume_stats()
        # The size that tgt tells is that of the time when it was exported.
        self._stats |= {"storage_protocol": self.target_driver.protocol, "multiattach": False, "online_extend_support": False}
