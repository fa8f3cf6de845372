#include "tools/convert/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "tools/convert/block_reader.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kHeaderBytes = 64 * 1024, kMaxBackingName = 1023;
constexpr std::string_view kQcow2{"QFI\xfb", 4}, kVmdk{"KDMV", 4};
constexpr const char* kFormats[] = {"qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"};

Error refused(const std::string& text) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, text); }

std::uint32_t be32(std::string_view text, std::size_t at) { return __builtin_bswap32(le32(text, at)); }
std::uint64_t be64(std::string_view text, std::size_t at) { return __builtin_bswap64(le64(text, at)); }

// The extension that says the format of the backing file.
Result<std::string> find_backing_format(std::string_view start, std::size_t at) {
  constexpr std::uint32_t kEnd = 0, kBackingFormat = 0xe2792aca;
  while (at + 8 <= start.size()) {
    const auto type = be32(start, at);
    const std::size_t bytes = be32(start, at + 4);
    if (type == kEnd) return std::string();
    if (bytes > start.size() - at - 8) break;
    if (type == kBackingFormat) return std::string(start.substr(at + 8, bytes));
    at += 8 + (bytes + 7) / 8 * 8;
  }
  return refused("the extensions of its header do not end");
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder == "/" ? folder : folder + "/");
}

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

Result<std::string> real_path(const std::string& path) {
  char buffer[PATH_MAX];
  if (!::realpath(path.c_str(), buffer)) return sys_fail("find " + quote(path));
  return std::string(buffer);
}

// Opening has no effect on what it is: devices other than those of blocks are looked at first.
Result<Fd> open_image(const std::string& path, struct stat& st) {
  if (::stat(path.c_str(), &st) != 0) return sys_fail("open " + quote(path));
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
    return refused("open " + quote(path) + ": neither a file nor a block device");
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!fd) return sys_fail("open " + quote(path));
  struct stat opened {};
  if (::fstat(fd.get(), &opened) != 0) return sys_fail("stat " + quote(path));
  if (opened.st_ino != st.st_ino || opened.st_dev != st.st_dev)
    return refused(quote(path) + " was replaced meanwhile");
  return fd;
}

Image describe(const std::string& path, const struct stat& st, std::string format) {
  return {path,
          std::move(format),
          st.st_ino,
          static_cast<std::uint64_t>(st.st_size),
          st.st_mtim.tv_sec,
          st.st_mtim.tv_nsec};
}

Result<std::string> read_start(const Fd& fd, const std::string& path) {
  std::string start(kHeaderBytes, '\0');
  const auto got = ::pread(fd.get(), start.data(), start.size(), 0);
  if (got < 0) return sys_fail("read " + quote(path));
  start.resize(static_cast<std::size_t>(got));
  return start;
}

Result<void> check_backing_name(const std::string& name, const std::string& format, const std::string& of) {
  const std::string who = "the backing file " + quote(name) + " of " + quote(of);
  if (name.find('\0') != std::string::npos || name.starts_with("json:") ||
      (name.find(':') != std::string::npos && name.find(':') < std::min(name.find('/'), name.size())))
    return refused(who + " is no file of this machine");
  if (format.empty())
    return refused(who + " has no format written down; write it with 'qemu-img rebase -u -F FORMAT -b FILE'");
  return {};
}

Result<void> check_place(const std::string& path, const std::vector<std::string>& folders, const std::string& of) {
  if (std::any_of(folders.begin(), folders.end(), [&](const auto& folder) { return is_below(path, folder); }))
    return {};
  return refused("the backing file " + quote(path) + " of " + quote(of) +
                 " is not in the folder of the disk; if it is meant, say --backing-folder " + folder_of(path));
}

// Headers of what a person has not named may not lead further.
Result<std::string> settle_format(const std::string& said, std::string_view start, const std::string& path) {
  const auto guessed = guess_format(start);
  const std::string format = said.empty() ? guessed : said;
  if (std::find(std::begin(kFormats), std::end(kFormats), format) == std::end(kFormats))
    return refused("the format " + quote(format) + " of " + quote(path) + " is none that can be read here");
  if (format != "raw" && format != guessed && format != "vpc")
    return refused(quote(path) + " is said to be " + format + " and is not");
  return format;
}

}  // namespace

std::string guess_format(std::string_view start) {
  if (start.starts_with(kQcow2)) return "qcow2";
  if (start.starts_with(kVmdk) || start.starts_with("# Disk Descriptor")) return "vmdk";
  if (start.starts_with("vhdxfile")) return "vhdx";
  if (start.starts_with("conectix")) return "vpc";
  if (start.size() >= 68 && le32(start, 64) == 0xbeda107f) return "vdi";
  return "raw";
}

Result<Qcow2Header> parse_qcow2_header(std::string_view start) {
  if (start.size() < 72 || !start.starts_with(kQcow2)) return refused("it is no qcow2");
  const auto version = be32(start, 4);
  if (version != 2 && version != 3)
    return refused("it is qcow2 of version " + std::to_string(version) + "; 2 and 3 can be read");
  std::size_t header_bytes = 72;
  if (version == 3) {
    constexpr std::uint64_t kDirty = 1, kCorrupt = 2, kExternalData = 4;
    if (start.size() < 104) return refused("its header is cut short");
    const auto features = be64(start, 72);
    if (features & kExternalData) return refused("its data is in another file; make it one by 'qemu-img convert'");
    if (features & kCorrupt) return refused("it is marked as damaged; see 'qemu-img check'");
    if (features & kDirty) return refused("it was not closed in order; see 'qemu-img check -r leaks'");
    header_bytes = be32(start, 100);
    if (header_bytes < 104 || header_bytes > start.size()) return refused("its header is cut short");
  }
  if (be32(start, 32) != 0) return refused("it is encrypted by qemu itself");
  Qcow2Header header;
  const auto offset = be64(start, 8), bytes = std::uint64_t{be32(start, 16)};
  if (offset == 0 || bytes == 0) return header;
  if (bytes > kMaxBackingName || offset > start.size() || bytes > start.size() - offset)
    return refused("the name of its backing file is not within its header");
  header.backing = start.substr(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
  // Extensions end where the name begins.
  header.backing_format = TRY(find_backing_format(start.substr(0, static_cast<std::size_t>(offset)), header_bytes));
  return header;
}

Result<void> check_vmdk_header(std::string_view start) {
  const Error several = refused("it is a vmdk of several files; make it one by 'qemu-img convert'");
  if (start.size() < 512 || !start.starts_with(kVmdk) || le64(start, 12) == 0) return several;
  const auto offset = le64(start, 28), sectors = le64(start, 36);
  if (offset == 0 || sectors == 0) return {};
  if (offset > start.size() / 512 || sectors > start.size() / 512 - offset)
    return refused("the description in this vmdk is not where it could be read");
  const auto text = start.substr(static_cast<std::size_t>(offset) * 512, static_cast<std::size_t>(sectors) * 512);
  if (text.find("parentCID=ffffffff") == std::string_view::npos ||
      text.find("parentFileNameHint") != std::string_view::npos)
    return refused("it is a vmdk on top of another one; make it one by 'qemu-img convert'");
  return {};
}

Result<std::vector<Image>> read_chain(const std::string& path, const std::string& format,
                                      const std::vector<std::string>& folders) {
  std::vector<Image> chain;
  std::string next = TRY(real_path(path)), next_format = format;
  std::vector<std::string> allowed;
  for (const auto& folder : folders) allowed.push_back(TRY(real_path(folder)));
  allowed.push_back(folder_of(next));
  while (!next.empty()) {
    if (chain.size() == kMaxChain) return refused(quote(path) + " is based on more than 31 others, or on itself");
    struct stat st {};
    const auto fd = TRY(open_image(next, st));
    const auto start = TRY(read_start(fd, next));
    chain.push_back(describe(next, st, TRY(settle_format(next_format, start, next))));
    const auto& image = chain.back();
    next.clear();
    if (image.format == "vmdk") TRY(check_vmdk_header(start), quote(image.path));
    if (image.format != "qcow2") continue;
    const auto header = TRY(parse_qcow2_header(start), quote(image.path));
    if (header.backing.empty()) continue;
    TRY(check_backing_name(header.backing, header.backing_format, image.path));
    next_format = header.backing_format;
    next =
        TRY(real_path(header.backing.front() == '/' ? header.backing : folder_of(image.path) + "/" + header.backing),
            "the backing file of " + quote(image.path));
    TRY(check_place(next, allowed, image.path));
  }
  return chain;
}

Result<Image> read_image(const std::string& path, const std::string& format) {
  struct stat st {};
  (void)TRY(open_image(path, st));
  return describe(path, st, format);
}

Result<void> check_unchanged(const Image& image) {
  struct stat st {};
  if (::stat(image.path.c_str(), &st) != 0) return sys_fail("look at " + quote(image.path));
  if (describe(image.path, st, image.format) != image)
    return fail(VIR_ERR_OPERATION_INVALID, quote(image.path) + " is not what it was when the conversion began: " +
                                               "the VM has run, or its disk was changed");
  return {};
}

}  // namespace virtuserns::convert
