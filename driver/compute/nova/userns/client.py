"""A client of virtuserns-compute's socket: frames of four bytes of length and a JSON-RPC 2.0 object.

Only the standard library's socket and threading are used: they wait for one green thread where eventlet has patched them,
and for one thread where it has not. A connection serves one request at a time; the client keeps those that are idle.
"""

import itertools
import json
import os
import socket
import struct
import threading
import time

_MAX_FRAME = 16 * 1024 * 1024
_MAX_IDLE = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_API_MAJOR, _API_MINOR = 1, 3
# JSON-RPC's own codes: an older adapter, and a request that was made wrongly.
_KIND_OF_CODE = {-32601: 'unsupported', -32602: 'invalid'}


class AdapterError(Exception):
    """What virtuserns-compute answered instead of a result."""

    def __init__(self, method, kind, message, retryable=False):
        super().__init__(message)
        self.method, self.kind, self.message, self.retryable = method, kind, message, retryable


class AdapterUnreachable(Exception):
    """There is no answer: nobody listens, or whoever did has gone away or is silent."""


class _Lost(Exception):
    """The connection ended; whether the request was carried out is not known."""


def _reason(error):
    """The kernel's words: eventlet's connect has the name of the number there (ENOENT)."""
    return os.strerror(error.errno) if error.errno else str(error)


class Connection:
    """One connection. Not to be shared by threads."""

    def __init__(self, path, timeout):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._serial = itertools.count(1)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise _Lost(f'connect: {_reason(error)}') from error

    def close(self):
        self._socket.close()

    def interrupt(self):
        """End a receive() that another thread is in; the connection is still that thread's to close."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def call(self, method, params, timeout):
        number = next(self._serial)
        self._send({'jsonrpc': '2.0', 'id': number, 'method': method, 'params': params}, timeout)
        answer = self.receive(timeout)
        if answer.get('id') != number:
            raise _Lost(f'{method}: an answer to another request')
        if 'error' in answer:
            error = answer['error']
            data = error.get('data') or {'kind': _KIND_OF_CODE.get(error.get('code'), 'internal')}
            raise AdapterError(method, data.get('kind', 'internal'), error.get('message', 'no reason given'),
                               bool(data.get('retryable')))
        return answer.get('result')

    def receive(self, timeout=None):
        """The next object. Without a timeout it waits for ever: for notifications."""
        self._socket.settimeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            size, = struct.unpack('>I', self._read(4, deadline))
            if size > _MAX_FRAME:
                raise _Lost(f'a frame of {size} bytes')
            message = json.loads(self._read(size, deadline))
        except ValueError as error:
            raise _Lost(f'a frame that is not JSON: {error}') from error
        if not isinstance(message, dict):
            raise _Lost('a frame that is not an object')
        return message

    def _send(self, message, timeout):
        body = json.dumps(message).encode()
        if len(body) > _MAX_FRAME:
            raise AdapterError(message['method'], 'invalid', f'the request has {len(body)} bytes, more than {_MAX_FRAME}')
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(struct.pack('>I', len(body)) + body)
        except socket.timeout as error:
            raise AdapterUnreachable('it takes no requests') from error
        except OSError as error:
            raise _Lost(_reason(error)) from error

    def _read(self, size, deadline):
        data = bytearray()
        while len(data) < size:
            try:
                if deadline is not None:
                    self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                piece = self._socket.recv(size - len(data))
            except socket.timeout as error:
                raise AdapterUnreachable('it does not answer in time') from error
            except OSError as error:
                raise _Lost(_reason(error)) from error
            if not piece:
                raise _Lost('the connection was closed')
            data += piece
        return bytes(data)


class Client:
    """Requests to the adapter at a path, from any number of threads."""

    def __init__(self, path, request_timeout, reconnect_timeout):
        self._path, self._request_timeout, self._reconnect_timeout = path, request_timeout, reconnect_timeout
        self._idle, self._lock = [], threading.Lock()

    def call(self, method, params, timeout=None):
        """The result of a request. Every request may be repeated, and is: while there is nobody, or it is busy."""
        timeout = timeout or self._request_timeout
        give_up = time.monotonic() + self._reconnect_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._call_once(method, params, timeout)
            except _Lost as error:
                failure = self._unreachable(method, error)
            except AdapterUnreachable as error:
                raise self._unreachable(method, error) from None
            except AdapterError as error:
                if not error.retryable:
                    raise
                failure = error
            left = give_up - time.monotonic()
            if left <= 0:
                raise failure
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def connect(self):
        """A connection of the caller's own."""
        return Connection(self._path, self._request_timeout)

    def check_version(self):
        version = self.call('api.version', {})['version']
        major, minor = map(int, version.split('.'))
        if major != _API_MAJOR or minor < _API_MINOR:
            raise AdapterError('api.version', 'unsupported',
                               f'virtuserns-compute speaks version {version} of its interface, this driver {_API_MAJOR}.{_API_MINOR} and '
                               f'later ones of {_API_MAJOR}: install both of one release')
        return version

    def close(self):
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _unreachable(self, method, error):
        return AdapterUnreachable(f"{method}: virtuserns-compute at '{self._path}': {error}")

    def _call_once(self, method, params, timeout):
        connection, is_new = self._take()
        try:
            result = connection.call(method, params, timeout)
        except AdapterError:
            self._give_back(connection)
            raise
        except _Lost:
            connection.close()
            if is_new:
                raise
            # The adapter was restarted since: what else is idle is dead as well, and a new connection tells.
            self.close()
            return self._call_once(method, params, timeout)
        except BaseException:  # a green thread may be ended in here: an answer would then meet the next request
            connection.close()
            raise
        self._give_back(connection)
        return result

    def _take(self):
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self.connect(), True

    def _give_back(self, connection):
        with self._lock:
            if len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()
