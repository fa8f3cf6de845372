#include "tools/convert/storage.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/base/file.h"
#include "conf/base/text.h"
#include "driver/kernel/mount.h"

namespace virtuserns::convert {
namespace {

// A folder that every machine has and that neither we nor what we run needs; hidden from this process only.
constexpr const char* kWorkplace = "/sys/kernel";
constexpr int kStartMs = 30'000, kEndMs = 120'000;

// A value in qemu's own syntax of options: commas are doubled.
std::string option_value(const std::string& text) {
  std::string value;
  for (const char c : text) value += c == ',' ? ",," : std::string(1, c);
  return value;
}

// Every node by name, so that qemu opens nothing that we have not looked at.
void add_nodes(const std::vector<Image>& chain, Access access, std::vector<std::string>& argv) {
  for (std::size_t i = chain.size(); i-- > 0;) {
    const std::string number = std::to_string(i), is_readonly = i == 0 && access == Access::kWrite ? "off" : "on";
    struct stat st {};
    const bool is_block = ::stat(chain[i].path.c_str(), &st) == 0 && S_ISBLK(st.st_mode);
    argv.insert(argv.end(), {"--blockdev", std::string("driver=") + (is_block ? "host_device" : "file") + ",node-name=f" +
                                               number + ",read-only=" + is_readonly + ",locking=on,discard=unmap,filename=" +
                                               option_value(chain[i].path)});
    std::string node = "driver=" + chain[i].format + ",node-name=d" + number + ",read-only=" + is_readonly +
                       ",discard=unmap,file=f" + number;
    if (chain[i].format == "qcow2") node += i + 1 < chain.size() ? ",backing=d" + std::to_string(i + 1) : ",backing=";
    argv.insert(argv.end(), {"--blockdev", node});
  }
}

// qemu greets on its monitor when everything before that is done.
Result<void> await_greeting(const Fd& socket, const Fd& log) {
  pollfd entry{socket.get(), POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&entry, 1, kStartMs)) < 0 && errno == EINTR) {
  }
  char greeting[512];
  if (ready > 0 && ::read(socket.get(), greeting, sizeof greeting) > 0) return {};
  std::string said(2048, '\0');
  const auto got = ::pread(log.get(), said.data(), said.size(), 0);
  said.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (said.find("Failed to get") != std::string::npos)
    return fail(VIR_ERR_OPERATION_INVALID, "the disk is in use by a running VM; shut it off (" +
                                               printable(trim(said), 600) + ")");
  return fail(VIR_ERR_OPERATION_FAILED,
              said.empty() ? "qemu-storage-daemon does not answer" : printable(trim(said), 600));
}

Result<Fd> make_log() {
  Fd log(::memfd_create("log", MFD_CLOEXEC));
  if (!log) return sys_fail("make a log");
  return log;
}

Result<void> sync_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return sys_fail("write " + quote(path) + " to its disk");
  return {};
}

}  // namespace

Result<std::string> make_workplace() {
  TRY(kernel::make_private_mount_namespace(), "a mount namespace");
  const auto mount = TRY(kernel::make_filesystem("tmpfs", {{"mode", "0700"}, {"size", "1m"}},
                                                 MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
                         "a place for mounts");
  const auto target = TRY(open_directory(kWorkplace));
  TRY(kernel::attach_mount(mount, target), "a place for mounts");
  return std::string(kWorkplace);
}

Result<OpenDisk> OpenDisk::open(const std::vector<Image>& chain, Access access, const std::string& workplace) {
  static unsigned counter = 0;
  const std::string place = workplace + "/disk" + std::to_string(counter++);
  const std::string what = "open disk " + quote(chain.front().path);
  if (const Fd file(::open(place.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)); !file) return sys_fail(what);
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) return sys_fail(what);
  const Fd ours(sockets[0]);
  Fd theirs(sockets[1]);
  std::vector<std::string> argv{"qemu-storage-daemon"};
  add_nodes(chain, access, argv);
  argv.insert(argv.end(), {"--export", "type=fuse,id=export,node-name=d0,mountpoint=" + option_value(place) +
                                           ",allow-other=off,writable=" + (access == Access::kWrite ? "on" : "off"),
                           "--chardev", "socket,id=monitor,fd=3", "--monitor", "chardev=monitor"});
  const auto log = TRY(make_log(), what);
  OpenDisk disk;
  disk.image_ = access == Access::kWrite ? chain.front().path : "";
  disk.daemon_ = TRY(Running::start(argv, theirs, log, log), what);
  theirs.reset();
  TRY(await_greeting(ours, log), what);
  disk.file_ = Fd(::open(place.c_str(), (access == Access::kWrite ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  struct stat st {};
  if (!disk.file_ || ::fstat(disk.file_.get(), &st) != 0) return sys_fail(what);
  disk.size_ = static_cast<std::uint64_t>(st.st_size);
  return disk;
}

Result<void> OpenDisk::close() {
  file_.reset();
  TRY(daemon_.end(kEndMs), "close the disk");
  return image_.empty() ? Result<void>() : sync_file(image_);
}

Result<Image> make_overlay(const std::string& path, const Image& base) {
  if (::access(path.c_str(), F_OK) == 0) return fail(VIR_ERR_OPERATION_FAILED, quote(path) + " is there already");
  TRY(need_program({"qemu-img", "create", "-q", "-f", "qcow2", "-F", base.format, "-b", base.path, "--", path}));
  TRY(sync_file(path));
  return read_image(path, "qcow2");
}

Result<void> check_image(const Image& image) {
  if (image.format != "qcow2") return {};
  // 3: clusters that nobody uses, which is no harm.
  const auto ended = TRY(run_program({"qemu-img", "check", "-q", "-f", "qcow2", "--", image.path}, 600'000));
  if (ended.status == 0 || ended.status == 3) return {};
  return fail(VIR_ERR_OPERATION_FAILED,
              "image " + quote(image.path) + " is damaged; see 'qemu-img check': " + printable(trim(ended.errors), 300));
}

Result<kernel::LoopDevice> attach_part(const Fd& file, std::uint64_t offset, std::uint64_t size, Access access) {
  return kernel::attach_loop(
      {file, "virt-userns-convert", access == Access::kWrite ? kernel::Access::kReadWrite : kernel::Access::kReadOnly, offset, size});
}

}  // namespace virtuserns::convert
