#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <set>

#include "conf/base/text.h"
#include "tools/image/root_tar.h"
#include "tools/image/acl.h"
#include "tools/image/confined.h"
#include "tools/image/tally.h"

namespace virtuserns::image {
namespace {

constexpr std::size_t kBlock = 128 * 1024;
constexpr std::uint64_t kAllocated = 4096;                 // what the smallest file takes
constexpr std::int64_t kMaxSize = std::int64_t{16} << 40;  // of one file, holes included: what ext4 can have
constexpr std::size_t kTarBlock = 512, kMaxPath = 4095;
constexpr std::size_t kOfName = 32;   // in its directory, beside the name itself
constexpr std::size_t kInInode = 59;  // of the target of a link
constexpr int kExtract = ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_XATTR |
                         ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                         ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS;
constexpr std::string_view kCapability = "security.capability";

struct FreeReader {
  void operator()(archive* reader) const { ::archive_read_free(reader); }
};
struct FreeWriter {
  void operator()(archive* writer) const { ::archive_write_free(writer); }
};
using Reader = std::unique_ptr<archive, FreeReader>;
using Writer = std::unique_ptr<archive, FreeWriter>;

Error refused(const std::string& text) { return fail(VIR_ERR_OPERATION_FAILED, text); }

std::string said(archive* of) {
  const char* text = ::archive_error_string(of);
  return text ? text : "it cannot be read";
}

// Without a leading "./" and a trailing "/".
std::string plain(std::string_view name) {
  while (name.starts_with("./")) {
    name.remove_prefix(2);
    while (name.starts_with('/')) name.remove_prefix(1);
  }
  while (name.size() > 1 && name.ends_with('/')) name.remove_suffix(1);
  return name.empty() ? "." : std::string(name);
}

Result<std::string> check_name(const char* raw, const char* what) {
  if (!raw || !*raw) return refused(std::string(what) + " without a name");
  const std::string_view name(raw);
  if (name.front() == '/') return refused(std::string(what) + " " + quote(name) + " is absolute");
  if (name.size() > kMaxPath) return refused(std::string(what) + " " + quote(name) + " is longer than 4095 bytes");
  for (const auto part : split(name, '/'))
    if (part == "..") return refused(std::string(what) + " " + quote(name) + " leads out of the tree by '..'");
  return plain(name);
}

bool is_outside(std::int64_t id) { return id < 0 || id >= kIdCount; }

Result<void> check_ids(archive_entry* entry, const std::string& name) {
  const auto uid = ::archive_entry_uid(entry), gid = ::archive_entry_gid(entry);
  if (is_outside(uid) || is_outside(gid))
    return refused(quote(name) + " belongs to " + std::to_string(uid) + ":" + std::to_string(gid) +
                   ", and a container has the ids 0 to " + std::to_string(kIdCount - 1) +
                   ": give it to another owner");
  return {};
}

// vfs_cap_data of linux/capability.h: version 2, or 3 for the root of a container.
bool is_capability_of_root(std::string_view value) {
  if (value.size() == 20) return value[3] == 2;
  return value.size() == 24 && value[3] == 3 && value.substr(20) == std::string_view("\0\0\0\0", 4);
}

class Extractor {
 public:
  explicit Extractor(const Limits& limits) : limits_(limits) {}

  Result<std::string> run(const Fd& archive, Compression compression) {
    TRY(open(archive, compression));
    for (;;) {
      archive_entry* entry = nullptr;
      const int got = ::archive_read_next_header(reader_.get(), &entry);
      if (got == ARCHIVE_EOF) break;
      // A warning is of one attribute or name that is looked at below.
      if (got < ARCHIVE_WARN) return refused(said(reader_.get()));
      TRY(take(entry));
      read_ = ::archive_filter_bytes(reader_.get(), 0);
    }
    TRY(check_end());
    if (::archive_write_close(writer_.get()) != ARCHIVE_OK) return refused("finish: " + said(writer_.get()));
    TRY(acls_.apply());
    return tally_.encode();
  }

 private:
  // One filter and one format: what is said to be a tar is not looked at as anything else, and nothing is compressed twice.
  Result<void> open(const Fd& archive, Compression compression) {
    static constexpr int kFilters[] = {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_XZ,
                                       ARCHIVE_FILTER_ZSTD, ARCHIVE_FILTER_BZIP2};
    reader_.reset(::archive_read_new());
    writer_.reset(::archive_write_disk_new());
    if (!reader_ || !writer_) return refused("no memory");
    const int filter = kFilters[static_cast<int>(compression)];
    if (::archive_read_append_filter(reader_.get(), filter) != ARCHIVE_OK ||
        ::archive_read_support_format_tar(reader_.get()) != ARCHIVE_OK ||
        ::archive_write_disk_set_options(writer_.get(), kExtract) != ARCHIVE_OK ||
        ::archive_read_open_fd(reader_.get(), archive.get(), kBlock) != ARCHIVE_OK)
      return refused("open: " + said(reader_.get()));
    return {};
  }

  Result<void> charge(std::uint64_t bytes) {
    tally_.bytes += bytes;
    if (tally_.bytes <= limits_.bytes.most) return {};
    return exceeds(limits_.bytes, "it needs", "bytes");
  }

  Result<void> take(archive_entry* entry) {
    if (++tally_.entries > limits_.entries.most) return exceeds(limits_.entries, "it has", "entries");
    const auto name = TRY(check_name(::archive_entry_pathname(entry), "entry"));
    ::archive_entry_copy_pathname(entry, name.c_str());
    TRY(charge_entry(entry, name));
    if (const char* raw = ::archive_entry_hardlink(entry); raw) return take_link(entry, name, raw);
    switch (::archive_entry_filetype(entry)) {
      case AE_IFREG:
      case AE_IFDIR:
      case AE_IFLNK:
      case AE_IFIFO:
        return write(entry, name);
      case AE_IFCHR:
      case AE_IFBLK:
        tally_.leave_out("device node", name);
        devices_.insert(name);
        return skip_data(name);
      default:
        return refused("entry " + quote(name) + " is of no known type");
    }
  }

  // What has no data takes a place all the same: a million empty directories are 4 GiB.
  Result<void> charge_entry(archive_entry* entry, const std::string& name) {
    TRY(charge(name.size() - name.rfind('/') + kOfName));
    const char* target = ::archive_entry_symlink(entry);
    const bool has_block = ::archive_entry_filetype(entry) == AE_IFDIR ||
                           (target && std::string_view(target).size() > kInInode) ||
                           ::archive_entry_acl_count(entry, ARCHIVE_ENTRY_ACL_TYPE_POSIX1E) > 0;
    return has_block ? charge(kAllocated) : Result<void>();
  }

  Result<void> take_link(archive_entry* entry, const std::string& name, const char* raw) {
    const auto target = TRY(check_name(raw, "hard link to"), "entry " + quote(name));
    if (devices_.contains(target)) {
      tally_.leave_out("device node", name);
      devices_.insert(name);
      return skip_data(name);
    }
    ::archive_entry_copy_hardlink(entry, target.c_str());
    return write(entry, name);
  }

  Result<void> write(archive_entry* entry, const std::string& name) {
    TRY(check_ids(entry, name));
    TRY(acls_.take(entry, name));
    TRY(keep_attributes(entry, name));
    if (::archive_entry_size(entry) < 0 || ::archive_entry_size(entry) > kMaxSize)
      return refused("entry " + quote(name) + " has " + std::to_string(::archive_entry_size(entry)) +
                     " bytes, and 16 TiB are the most");
    if (::archive_write_header(writer_.get(), entry) != ARCHIVE_OK) return of_entry(name, writer_.get());
    TRY(copy_data(name));
    if (::archive_write_finish_entry(writer_.get()) != ARCHIVE_OK) return of_entry(name, writer_.get());
    return {};
  }

  static Error of_entry(const std::string& name, archive* where) {
    auto error = refused("entry " + quote(name) + ": " + said(where));
    if (::archive_errno(where) == ENOSPC || ::archive_errno(where) == EDQUOT) error.sys_errno = ENOSPC;
    return error;
  }

  // Of all that it has, what a container may have.
  Result<void> keep_attributes(archive_entry* entry, const std::string& name) {
    std::vector<std::pair<std::string, std::string>> kept;
    const char* attribute = nullptr;
    const void* value = nullptr;
    std::size_t size = 0, taken = 0;
    ::archive_entry_xattr_reset(entry);
    while (::archive_entry_xattr_next(entry, &attribute, &value, &size) == ARCHIVE_OK) {
      const std::string key(attribute ? attribute : "");
      const std::string_view bytes(static_cast<const char*>(value), size);
      if (key.starts_with("system.posix_acl_")) continue;  // a second copy of a list, in the machine's own form
      if (!key.starts_with("user.") && (key != kCapability || !is_capability_of_root(bytes))) {
        tally_.leave_out("attribute '" + key + "'", name);
        continue;
      }
      taken += size;
      kept.emplace_back(key, bytes);
    }
    TRY(charge((taken + kAllocated - 1) / kAllocated * kAllocated));
    ::archive_entry_xattr_clear(entry);
    for (const auto& [key, bytes] : kept)
      ::archive_entry_xattr_add_entry(entry, key.c_str(), bytes.data(), bytes.size());
    return {};
  }

  template <class Use>
  Result<void> each_block(const std::string& name, Use use) {
    for (;;) {
      const void* data = nullptr;
      std::size_t size = 0;
      la_int64_t at = 0;
      const int got = ::archive_read_data_block(reader_.get(), &data, &size, &at);
      if (got == ARCHIVE_EOF) return {};
      if (got != ARCHIVE_OK) return of_entry(name, reader_.get());
      TRY(use(data, size, at));
    }
  }

  Result<void> copy_data(const std::string& name) {
    std::uint64_t written = 0;
    TRY(each_block(name, [&](const void* data, std::size_t size, la_int64_t at) -> Result<void> {
      const auto before = (written + kAllocated - 1) / kAllocated;
      written += size;
      TRY(charge(((written + kAllocated - 1) / kAllocated - before) * kAllocated));
      if (size > 0 && ::archive_write_data_block(writer_.get(), data, size, at) < ARCHIVE_OK)
        return of_entry(name, writer_.get());
      return {};
    }));
    return {};
  }

  // What no entry should have: it costs time alone, and is bounded likewise.
  Result<void> skip_data(const std::string& name) {
    return each_block(name, [&](const void*, std::size_t size, la_int64_t) { return charge(size); });
  }

  // An archive that was cut between two entries has no end mark, and libarchive does not miss it.
  Result<void> check_end() {
    if (tally_.entries == 0) return refused("it has no entries");
    if (::archive_filter_bytes(reader_.get(), 0) - read_ >= static_cast<la_int64_t>(kTarBlock)) return {};
    return refused("it is truncated: it has no end mark");
  }

  const Limits& limits_;
  Reader reader_;
  Writer writer_;
  Tally tally_;
  AclList acls_;
  std::set<std::string> devices_;
  la_int64_t read_ = 0;
};

}  // namespace

Result<std::string> extract_archive(const Fd& archive, Compression compression, const Limits& limits) {
  return Extractor(limits).run(archive, compression);
}

}  // namespace virtuserns::image
