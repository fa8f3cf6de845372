"""The section [userns] of Nova's configuration."""

from oslo_config import cfg

import nova.conf

CONF = nova.conf.CONF

_GROUP = cfg.OptGroup('userns', title='User-namespace containers', help='The client of virtuserns-compute(8).')

_OPTIONS = [
    cfg.StrOpt('socket', default='/run/virtuserns/compute.sock',
               help='The socket of virtuserns-compute.'),
    cfg.StrOpt('node_name',
               help='The hypervisor_hostname of this node. Unset: what virtuserns-compute says is its host. Two '
                    'nova-compute on one machine need two names.'),
    cfg.IntOpt('request_timeout', default=60, min=1,
               help='Seconds to wait for the answer to a question, or to a change that takes no time.'),
    cfg.IntOpt('long_request_timeout', default=3600, min=1,
               help='Seconds to wait for what copies an image or a disk: spawn, snapshot, resize, migration.'),
    cfg.IntOpt('reconnect_timeout', default=15, min=0,
               help='Seconds to try again while virtuserns-compute cannot be reached (it is being restarted) or says '
                    'that it could do this later.'),
    cfg.IntOpt('lost_requests_delay', default=30, min=-1,
               help='Seconds after it begins to listen that nova-compute looks for requests that were lost when it was killed, and has them '
                    'asked for again or set back. What had waited in its queue has to have begun by then. -1: leave them to an operator.'),
    cfg.StrOpt('spool_path', default='$state_path/userns',
               help='Where images are kept on their way from Glance to virtuserns-compute, and snapshots on their way '
                    'back.'),
    cfg.IntOpt('image_cache_mb', min=0,
               help='How much all images may take together: while it is more, those that no instance needs are removed, the '
                    "longest unused first; beside what Nova's section [image_cache] says of their age. Unset: no limit."),
    cfg.BoolOpt('inject_password', default=True,
                help="Set the password that Nova's API returned when the instance was created."),
    cfg.IntOpt('reserved_id_ranges', default=0, min=0,
               help='Id ranges (CUSTOM_IDMAP_RANGE) that Placement keeps back, for domains that are not instances.'),
    cfg.BoolOpt('volume_use_multipath', default=False,
                help='Whether os-brick attaches volumes by all their paths.'),
    cfg.IntOpt('num_volume_scan_tries', default=5, min=1,
               help='How often os-brick looks for the device of a volume.'),
]


def register():
    CONF.register_group(_GROUP)
    CONF.register_opts(_OPTIONS, group=_GROUP)


def list_opts():
    return [(_GROUP, _OPTIONS)]
