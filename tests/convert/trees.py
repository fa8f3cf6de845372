"""What a tree of files is, to the last attribute: one line of text for each entry, compared before and after."""
import hashlib
import os
import stat


def _content(path, st):
    if stat.S_ISREG(st.st_mode):
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        holes = st.st_blocks * 512 < st.st_size // 2
        return f"{st.st_size} {digest.hexdigest()[:16]}{' holes' if holes else ''}"
    if stat.S_ISLNK(st.st_mode):
        return "-> " + os.readlink(path)
    if stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode):
        return f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
    return ""


def _attributes(path):
    # xfs shows an access control list a second time.
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.SGI_ACL"))
    return " ".join(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in names)


def manifest(root, leave_out=("lost+found",)):
    """{path: its description}; hard links name the first of them."""
    lines, first = {}, {}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) != os.path.join(root, *leave_out[:1]))
        for name in sorted(folders + files) if folder != root else sorted(folders + files) + ["."]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            own = os.path.relpath(path, root)
            text = f"{st.st_mode:o} {st.st_uid}:{st.st_gid} {_content(path, st)} {_attributes(path)}"
            if not stat.S_ISDIR(st.st_mode):
                text += f" {st.st_mtime_ns}"
                if st.st_nlink > 1:
                    text += f" link {first.setdefault(st.st_ino, own)}"
            lines[own] = text
    return lines


def differences(before, after):
    """{path: (before, after)} of what is not the same."""
    return {path: (before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)}
