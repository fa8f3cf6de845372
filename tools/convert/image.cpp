#include "tools/convert/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/controller/qcow2.h"
#include "tools/convert/block_reader.h"

namespace virtuserns::convert {
namespace {

constexpr std::size_t kHeaderBytes = controller::kQcow2HeaderBytes;
constexpr std::string_view kQcow2{"QFI\xfb", 4}, kVmdk{"KDMV", 4};
constexpr const char* kFormats[] = {"qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"};

Error refused(const std::string& text) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, text); }

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

// Whether it is one that the storage daemon reads as it is.
Result<void> check_qcow2(const controller::Qcow2Header& header) {
  if (header.has_data_file) return refused("its data is in another file; make it one by 'qemu-img convert'");
  if (header.is_corrupt) return refused("it is marked as damaged; see 'qemu-img check'");
  if (header.is_unclean) return refused("it was not closed in order; see 'qemu-img check -r leaks'");
  if (header.is_encrypted) return refused("it is encrypted by qemu itself");
  return {};
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

struct Headers {
  Image image;
  controller::Qcow2Header qcow2;  // of others: of nothing
};

Result<Headers> read_headers(const std::string& path, const std::string& format) {
  struct stat st {};
  const auto fd = TRY(open_image(path, st));
  const auto start = TRY(read_start(fd, path));
  Headers headers{describe(path, st, TRY(settle_format(format, start, path))), {}};
  if (headers.image.format == "vmdk") TRY(check_vmdk_header(start), quote(path));
  if (headers.image.format != "qcow2") return headers;
  headers.qcow2 = TRY(controller::parse_qcow2_header(start), quote(path));
  TRY(check_qcow2(headers.qcow2), quote(path));
  return headers;
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
    auto [image, header] = TRY(read_headers(next, next_format));
    chain.push_back(std::move(image));
    next.clear();
    if (header.backing.empty()) continue;
    const auto& of = chain.back().path;
    TRY(check_backing_name(header.backing, header.backing_format, of));
    next_format = header.backing_format;
    next = TRY(real_path(header.backing.front() == '/' ? header.backing : folder_of(of) + "/" + header.backing),
               "the backing file of " + quote(of));
    TRY(check_place(next, allowed, of));
  }
  return chain;
}

Result<Image> read_whole_image(const std::string& path, const std::string& format) {
  auto [image, header] = TRY(read_headers(TRY(real_path(path)), format));
  if (header.backing.empty()) return std::move(image);
  return refused(quote(path) + " lies on another file, " + quote(header.backing) +
                 ", which is not opened; make one image of them, by 'qemu-img convert'");
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
