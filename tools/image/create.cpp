#include <archive.h>
#include <archive_entry.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "conf/base/text.h"
#include "tools/image/root_tar.h"
#include "tools/image/tally.h"

namespace virtuserns::image {
namespace {

constexpr std::size_t kZeros = std::size_t{256} << 20;
constexpr std::string_view kCapability = "security.capability";

struct Free {
  void operator()(archive* of) const { ::archive_free(of); }
  void operator()(archive_entry* of) const { ::archive_entry_free(of); }
  void operator()(archive_entry_linkresolver* of) const { ::archive_entry_linkresolver_free(of); }
};
using Handle = std::unique_ptr<archive, Free>;

Error refused(archive* of, const std::string& what) {
  const char* text = ::archive_error_string(of);
  return fail(VIR_ERR_OPERATION_FAILED, what + ": " + (text ? text : "it cannot be read"));
}

class Creator {
 public:
  Result<std::string> run(const Fd& output) {
    TRY(open(output));
    for (;;) {
      const std::unique_ptr<archive_entry, Free> entry(::archive_entry_new());
      const int got = ::archive_read_next_header2(tree_.get(), entry.get());
      if (got == ARCHIVE_EOF) break;
      const char* raw = ::archive_entry_pathname(entry.get());
      const std::string name(raw ? raw : "");
      if (got < ARCHIVE_WARN) {
        // Whoever uses the tree has removed it since its folder was read.
        if (::archive_errno(tree_.get()) != ENOENT || got == ARCHIVE_FATAL) return refused(tree_.get(), quote(name));
        tally_.leave_out("file that was removed meanwhile", name);
        continue;
      }
      TRY(add(entry.get(), name));
      if (::archive_read_disk_can_descend(tree_.get()) > 0 && ::archive_read_disk_descend(tree_.get()) < ARCHIVE_WARN)
        return refused(tree_.get(), quote(name));
    }
    if (::archive_write_close(output_.get()) != ARCHIVE_OK) return refused(output_.get(), "write");
    return tally_.encode();
  }

 private:
  Result<void> open(const Fd& output) {
    tree_.reset(::archive_read_disk_new());
    output_.reset(::archive_write_new());
    links_.reset(::archive_entry_linkresolver_new());
    if (!tree_ || !output_ || !links_) return fail(VIR_ERR_OPERATION_FAILED, "no memory");
    ::archive_read_disk_set_symlink_physical(tree_.get());
    ::archive_read_disk_set_behavior(tree_.get(), ARCHIVE_READDISK_NO_FFLAGS | ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS);
    if (::archive_write_set_format_pax(output_.get()) != ARCHIVE_OK ||
        // One copy of each attribute, in the words of GNU tar.
        ::archive_write_set_format_option(output_.get(), "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
        // A pipe gets what a file gets.
        ::archive_write_set_bytes_in_last_block(output_.get(), 1) != ARCHIVE_OK ||
        ::archive_write_open_fd(output_.get(), output.get()) != ARCHIVE_OK)
      return refused(output_.get(), "open");
    ::archive_entry_linkresolver_set_strategy(links_.get(), ::archive_format(output_.get()));
    if (::archive_read_disk_open(tree_.get(), ".") != ARCHIVE_OK) return refused(tree_.get(), "open");
    return {};
  }

  Result<void> add(archive_entry* entry, const std::string& name) {
    switch (::archive_entry_filetype(entry)) {
      case AE_IFREG:
      case AE_IFDIR:
      case AE_IFLNK:
      case AE_IFIFO:
        break;
      case AE_IFSOCK:
        tally_.leave_out("socket", name);
        return {};
      default:
        tally_.leave_out("device node", name);
        return {};
    }
    keep_attributes(entry, name);
    // The same tree is the same archive: reading it is no change.
    ::archive_entry_unset_atime(entry);
    ::archive_entry_unset_ctime(entry);
    ::archive_entry_unset_birthtime(entry);
    ++tally_.entries;
    // Of a file with several names the first one has its data; with this strategy no entry is held back.
    archive_entry *linked = entry, *held = nullptr;
    ::archive_entry_linkify(links_.get(), &linked, &held);
    if (::archive_write_header(output_.get(), linked) < ARCHIVE_WARN) return refused(output_.get(), quote(name));
    if (::archive_entry_filetype(linked) == AE_IFREG && ::archive_entry_size(linked) > 0)
      TRY(copy_data(::archive_entry_size(linked), name));
    if (::archive_write_finish_entry(output_.get()) != ARCHIVE_OK) return refused(output_.get(), quote(name));
    return {};
  }

  void keep_attributes(archive_entry* entry, const std::string& name) {
    std::vector<std::pair<std::string, std::string>> kept;
    const char* attribute = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    ::archive_entry_xattr_reset(entry);
    while (::archive_entry_xattr_next(entry, &attribute, &value, &size) == ARCHIVE_OK) {
      const std::string key(attribute ? attribute : "");
      if (key.starts_with("user.") || key == kCapability)
        kept.emplace_back(key, std::string(static_cast<const char*>(value), size));
      else
        tally_.leave_out("attribute '" + key + "'", name);
    }
    ::archive_entry_xattr_clear(entry);
    for (const auto& [key, bytes] : kept)
      ::archive_entry_xattr_add_entry(entry, key.c_str(), bytes.data(), bytes.size());
  }

  // As much as the header says: one that has shrunk meanwhile ends with zeros, of one that has grown the rest is not read.
  Result<void> copy_data(la_int64_t size, const std::string& name) {
    for (la_int64_t done = 0;;) {
      const void* data = nullptr;
      std::size_t length = 0;
      la_int64_t at = 0;
      const int got = ::archive_read_data_block(tree_.get(), &data, &length, &at);
      if (got == ARCHIVE_EOF) return {};
      if (got != ARCHIVE_OK) return refused(tree_.get(), quote(name));
      if (at > size) at = size;
      TRY(write_hole(at - done, name));
      length = static_cast<std::size_t>(std::min<la_int64_t>(static_cast<la_int64_t>(length), size - at));
      TRY(write(data, length, name));
      tally_.bytes += length;
      done = at + static_cast<la_int64_t>(length);
      if (done >= size) return {};
    }
  }

  // libarchive wants the bytes of a hole, of which it writes none and looks at none. Asked by the MiB it takes a quarter of a second for the
  // largest file of ext4, which costs an instance one block; so the parts are large, and are no memory.
  Result<void> write_hole(la_int64_t bytes, const std::string& name) {
    if (bytes <= 0) return {};
    static void* const zeros = ::mmap(nullptr, kZeros, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros == MAP_FAILED) return fail(VIR_ERR_OPERATION_FAILED, "no memory");
    for (; bytes > 0; bytes -= static_cast<la_int64_t>(kZeros))
      TRY(write(zeros, static_cast<std::size_t>(std::min<la_int64_t>(bytes, kZeros)), name));
    return {};
  }

  Result<void> write(const void* data, std::size_t length, const std::string& name) {
    if (length > 0 && ::archive_write_data(output_.get(), data, length) < 0)
      return refused(output_.get(), quote(name));
    return {};
  }

  Handle tree_, output_;
  std::unique_ptr<archive_entry_linkresolver, Free> links_;
  Tally tally_;
};

}  // namespace

Result<std::string> create_archive(const Fd& output) { return Creator().run(output); }

}  // namespace virtuserns::image
