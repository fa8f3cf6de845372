"""Images on their way between Glance and virtuserns-compute's cache."""

import base64
import collections
import contextlib
import errno
import hashlib
import json
import os
import tempfile

from cryptography.exceptions import InvalidSignature
from oslo_concurrency import lockutils
from oslo_log import log as logging
from oslo_utils import fileutils

import nova.conf
from nova import exception
from nova.image import glance
from nova.virt.userns import adapter as userns_adapter
from nova.virt.userns import marshal

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

_KNOWN_IMAGES = 1024
_ATTEMPTS = 3  # an image may be swept between its arrival and its use, though not again and again
# A base that was fetched for a boot is not the cache's to remove before that boot has come to it.
_ON_ITS_WAY_S = 600
# Glance's words for what the adapter names otherwise, and for files whose content is the disk itself.
_FORMATS = {'ami': 'raw', 'iso': 'raw'}
_SIGNATURE = ('img_signature', 'img_signature_hash_method', 'img_signature_key_type', 'img_signature_certificate_uuid')

# An image of Glance's: the structure `image`, and what writes its bytes to a path.
_Found = collections.namedtuple('_Found', 'id image download')


class _Signed(glance.GlanceImageServiceV2):
    """An image whose signature Nova checks, by one description of it: its owner, or a Glance that is not to be trusted, may give
    it another signature between two questions, and the base has the one that was verified in its key."""

    record = None

    def show(self, context, image_id, **_kwargs):
        if self.record is None:
            self.record = super().show(context, image_id, include_locations=True)
        return self.record

    def is_wanted(self, context, image_id, trusted_certs):
        """Whether Nova wants a signature, by its configuration or the instance's certificates. Raises where the image has none, or
        one whose certificate is not trusted: that is asked for each boot. The content is verified as it is downloaded."""
        return self._get_verifier(context, image_id, trusted_certs) is not None


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
        """Have the adapter hold an image. Whether it had to be fetched."""
        return self._ensure(self._find(context, image_id, trusted_certs), None)

    def using(self, context, image_id, trusted_certs, max_mb, request):
        """What `request(image)` returns. The cache is asked by that request itself: an image that it has costs no other. `max_mb`:
        of image.add."""
        found = self._find(context, image_id, trusted_certs) if image_id else None
        return self._repeated(lambda: request(found and found.image), found and (lambda: self._ensure(found, max_mb)))

    def using_again(self, context, image_id, trusted_certs, image, request):
        """What `request()` returns, of an instance that was made of the base `image` elsewhere. Glance is asked where that has to
        be fetched only: no certificate that has expired since keeps an instance from going on, nor does the size of what it is
        made of, which its flavor of that time allowed."""
        def fetch():
            found = self._find(context, image_id, trusted_certs)
            if image == self.reference(context, image_id):  # the instance is older than Nova's wish for signatures
                found = found._replace(image=image)
            self._ensure(found, marshal.ANY_SIZE)
        return self._repeated(request, image_id and fetch)

    @staticmethod
    def _repeated(request, fetch):
        for _ in range(_ATTEMPTS - 1 if fetch else 0):
            try:
                return request()
            except userns_adapter.ImageMissing:
                fetch()
        return request()

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

    def _find(self, context, image_id, trusted_certs):
        signed = _Signed()
        if signed.is_wanted(context, image_id, trusted_certs):
            return _Found(image_id, _reference(signed.record, is_signed=True),
                          lambda path: signed.download(context, image_id, dst_path=path, trusted_certs=trusted_certs))
        return _Found(image_id, self.reference(context, image_id),
                      lambda path: self._glance.download(context, image_id, dest_path=path))

    def _ensure(self, found, max_mb):
        key = found.image['key']
        if self._adapter.call('image.has', key=key)['present']:
            return False
        with lockutils.lock(f'userns-image-{key}'):
            if self._adapter.call('image.has', key=key)['present']:
                return False
            with spool_file() as path:
                LOG.info('Fetching image %(id)s for virtuserns-compute, as %(key)s', {'id': found.id, 'key': key})
                with _judging(found.id):
                    found.download(path)
                limit = {} if max_mb is None else {'max_mb': max_mb}
                self._adapter.call_long('image.add', key=key, format=found.image['format'], path=path, **limit)
        return True


@contextlib.contextmanager
def _judging(image_id):
    """An image that is not what it shall be is that for all hosts: Nova would try them until none is left, and say that."""
    try:
        yield
    except InvalidSignature as error:
        raise exception.ImageUnacceptable(image_id=image_id, reason='its signature is not that of its content') from error
    except OSError as error:
        if error.errno != errno.EPIPE:  # so says glanceclient that the content has another hash
            raise
        raise exception.ImageUnacceptable(image_id=image_id, reason=error.strerror) from error


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


def _reference(record, is_signed=False):
    """A base under the key of a signature was verified by it, and is no other image's, though that had the same content."""
    image_format = _FORMATS.get(record['disk_format'], record['disk_format'])
    key = f"{_hash(record) or 'id-' + record['id']}-{image_format}"
    return {'key': f'{key}-signed-{_digest(record["properties"])}' if is_signed else key, 'format': image_format}


def _digest(properties):
    """Of a signature and all that says how it is verified."""
    text = json.dumps([str(properties.get(name)) for name in _SIGNATURE])
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')


def _hash(record):
    """None for an image whose bytes Glance has not had in its hands (yet)."""
    if record.get('os_hash_value'):
        return f"{record['os_hash_algo']}-{record['os_hash_value']}"
    return f"md5-{record['checksum']}" if record.get('checksum') else None
