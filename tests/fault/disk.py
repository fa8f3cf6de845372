"""A disk that may lose what was not synced: what can be found on it after a crash at any moment of recorded writes.

The rules are those that every file system of Linux keeps, and no kinder ones:
  * fsync of a file makes its bytes durable, not its name; fsync of a directory makes the names in it durable;
  * of the changes to names since then each may be there or not; a rename is there as a whole or not at all;
  * of the bytes since then there may be all, none, the first half, or zeros.
"""
import dataclasses
import itertools
import os
import pathlib
import shutil
import stat

MOST_SUBSETS_OF = 6  # pending changes; of more only the first ones, in order, and each left out alone


@dataclasses.dataclass
class File:
    kind: str            # "file", "link", "folder"
    data: bytes = b""    # of a link: where it leads
    synced: bytes = b""


class Disk:
    """`folders` are the ones that are watched; what is in them at first is durable."""

    def __init__(self, folders):
        self.folders = [str(folder) for folder in folders]
        self.files, self.names, self.pending = [], {}, []  # names: path -> number of a file; pending: lists of (path, number)
        self.durable, self.last_written = {}, None
        for folder in self.folders:
            for where, folders_, files in os.walk(folder):
                self._add(where, File("folder"))
                for name in files + [name for name in folders_ if os.path.islink(f"{where}/{name}")]:
                    self._read(f"{where}/{name}")
        self.durable = dict(self.names)

    def _add(self, path, file):
        self.files.append(file)
        self.names[path] = len(self.files) - 1
        return self.names[path]

    def _read(self, path):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            self._add(path, File("link", os.readlink(path).encode()))
        elif stat.S_ISREG(mode):
            data = pathlib.Path(path).read_bytes()
            self._add(path, File("file", data, data))

    def _file(self, path):
        return self.files[self.names[path]] if path in self.names else None

    def _change(self, *changes):
        self.pending.append(list(changes))
        for path, number in changes:
            if number is None:
                self.names.pop(path, None)
            else:
                self.names[path] = number

    def do(self, what, path, *more):
        """One recorded call. One that fails here failed there too."""
        file = self._file(path)
        self.last_written = file if what == "write" else None
        if what == "open":
            if file is None:
                self._change((path, self._add(path, File("file"))))
            elif more[0] & os.O_TRUNC:
                file.data = b""
        elif what == "write" and file is not None:
            file.data += more[0].encode("latin-1")
        elif what == "fsync" and file is not None:
            if file.kind == "folder":
                self._sync_folder(path)
            file.synced = file.data
        elif what == "rename" and file is not None and self.names[path] != self.names.get(more[0]):
            self._change((path, None), (more[0], self.names[path]))
        elif what == "link" and file is not None and more[0] not in self.names:
            self._change((more[0], self.names[path]))
        elif what == "symlink" and more[0] not in self.names:
            self._change((more[0], self._add(more[0], File("link", path.encode()))))
        elif what == "mkdir" and file is None:
            self._change((path, self._add(path, File("folder"))))
        elif what in ("unlink", "rmdir") and file is not None:
            self._change((path, None))

    def _sync_folder(self, folder):
        for changes in [changes for changes in self.pending if all(os.path.dirname(path) == folder for path, _ in changes)]:
            self._apply(self.durable, changes)
            self.pending.remove(changes)

    @staticmethod
    def _apply(names, changes):
        for path, number in changes:
            if number is None:
                names.pop(path, None)
            else:
                names[path] = number

    def _chosen(self):
        count = len(self.pending)
        if count <= MOST_SUBSETS_OF:
            return [c for size in range(count + 1) for c in itertools.combinations(range(count), size)]
        return [tuple(range(size)) for size in range(count + 1)] + \
            [tuple(n for n in range(count) if n != left) for left in range(count)]

    def crash_states(self, keeps_all=False):
        """Each as (what was lost, {path: (kind, data)}). `keeps_all`: only the process dies, not the machine: then at most
        the write that it was in is incomplete."""
        def torn(file):
            if keeps_all and file is not self.last_written:
                return file.data
            return file.synced + file.data[len(file.synced):][:(len(file.data) - len(file.synced)) // 2]
        variants = [("", lambda file: file.data), ("torn bytes", torn)]
        if not keeps_all:
            variants += [("lost bytes", lambda file: file.synced),
                         ("zeros", lambda file: file.synced + b"\0" * (len(file.data) - len(file.synced)))]
        for chosen in [tuple(range(len(self.pending)))] if keeps_all else self._chosen():
            names = dict(self.durable)
            for number in chosen:
                self._apply(names, self.pending[number])
            lost = [f"{'->'.join(os.path.basename(path) for path, _ in changes)}" for number, changes in
                    enumerate(self.pending) if number not in chosen]
            for label, content in variants:
                state = {}
                for path, number in sorted(names.items()):
                    file = self.files[number]
                    if self._is_reachable(names, path):
                        state[path] = (file.kind, content(file) if file.kind == "file" else file.data)
                yield ", ".join(filter(None, [label, f"lost {lost}" if lost else ""])) or "all there", state

    def _is_reachable(self, names, path):
        while path not in self.folders:
            path = os.path.dirname(path)
            if path not in names or self.files[names[path]].kind != "folder":
                return False
        return True

    def lay_out(self, state):
        """Makes the folders hold exactly this."""
        for folder in self.folders:
            for entry in pathlib.Path(folder).iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        for path, (kind, data) in state.items():
            if kind == "folder":
                os.makedirs(path, mode=0o700, exist_ok=True)
            elif kind == "link":
                os.symlink(data.decode(), path)
            else:
                pathlib.Path(path).write_bytes(data)
                os.chmod(path, 0o600)
