"""Images on their way between Glance and virtuserns-compute's cache."""

import contextlib
import os
import tempfile

from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import fileutils

import nova.conf
from nova.image import glance
from nova.virt.userns import adapter as userns_adapter

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_KNOWN_IMAGES = 1024
_ATTEMPTS = 3  # an image may be swept between its arrival and its use, though not again and again
# A base that was fetched for a boot is not the cache's to remove before that boot has come to it.
_ON_ITS_WAY_S = 600
# Glance's words for what the adapter names otherwise, and for files whose content is the disk itself.
_FORMATS = {'ami': 'raw', 'iso': 'raw'}


class Images:
    def __init__(self, adapter):
        self._adapter, self._glance = adapter, glance.API()
        # Glance's answers: what an image is never changes once it has a hash.
        self._known = {}

    def reference(self, context, image_id):
        """The structure `image` of an image of Glance's: a key that says what its bytes are."""
        found = self._known.get(image_id)
        if found is None:
            record = self._glance.get(context, image_id)
            found = _reference(record)
            if _hash(record):
                while len(self._known) >= _KNOWN_IMAGES:
                    self._known.pop(next(iter(self._known)))
                self._known[image_id] = found
        return found

    def ensure(self, context, image_id, trusted_certs=None):
        """Have the adapter hold an image. Whether it had to be fetched, and its structure."""
        image = self.reference(context, image_id)
        if self._adapter.call('image.has', key=image['key'])['present']:
            return False, image
        with lockutils.lock(f"userns-image-{image['key']}"):
            if self._adapter.call('image.has', key=image['key'])['present']:
                return False, image
            self._fetch(context, image_id, image, trusted_certs)
        return True, image

    def using(self, context, image_id, trusted_certs, request):
        """What `request(image)` returns. The cache is asked by that request itself: an image that it has costs no other."""
        image = self.reference(context, image_id) if image_id else None
        for attempt in range(_ATTEMPTS):
            try:
                return request(image)
            except userns_adapter.ImageMissing:
                if image is None or attempt + 1 == _ATTEMPTS:
                    raise
            self.ensure(context, image_id, trusted_certs)

    def sweep(self):
        """Have what no instance needs removed, by the limits of the configuration."""
        age_s = CONF.image_cache.remove_unused_original_minimum_age_seconds
        limits = {} if CONF.userns.image_cache_mb is None else {'max_mb': CONF.userns.image_cache_mb}
        return self._adapter.call_long('image.sweep', max_age_s=age_s, keep_unused_for_s=min(age_s, _ON_ITS_WAY_S),
                                       **limits)['removed']

    def upload(self, context, image_id, metadata, path):
        with open(path, 'rb') as data:
            self._glance.update(context, image_id, metadata, data, purge_props=False)

    def describe(self, context, image_id):
        return self._glance.get(context, image_id)

    def _fetch(self, context, image_id, image, trusted_certs):
        with spool_file() as path:
            LOG.info('Fetching image %(id)s for virtuserns-compute, as %(key)s', {'id': image_id, 'key': image['key']})
            self._glance.download(context, image_id, dest_path=path, trusted_certs=trusted_certs)
            self._adapter.call_long('image.add', key=image['key'], format=image['format'], path=path)


@contextlib.contextmanager
def spool_file():
    """The path of a new, empty file that nobody else reads; it is gone afterwards."""
    fileutils.ensure_tree(CONF.userns.spool_path, mode=0o700)
    descriptor, path = tempfile.mkstemp(prefix='image-', dir=CONF.userns.spool_path)
    os.close(descriptor)
    try:
        yield path
    finally:
        fileutils.delete_if_exists(path)


def clear_spool():
    """Remove what a nova-compute that was killed has left."""
    if not os.path.isdir(CONF.userns.spool_path):
        return
    for name in os.listdir(CONF.userns.spool_path):
        if name.startswith('image-'):
            fileutils.delete_if_exists(os.path.join(CONF.userns.spool_path, name))


def _reference(record):
    image_format = _FORMATS.get(record['disk_format'], record['disk_format'])
    return {'key': f"{_hash(record) or 'id-' + record['id']}-{image_format}", 'format': image_format}


def _hash(record):
    """None for an image whose bytes Glance has not had in its hands (yet)."""
    if record.get('os_hash_value'):
        return f"{record['os_hash_algo']}-{record['os_hash_value']}"
    return f"md5-{record['checksum']}" if record.get('checksum') else None
