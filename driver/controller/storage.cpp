#include "driver/controller/storage.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "conf/base/text.h"
#include "driver/controller/jail.h"
#include "driver/controller/qcow2.h"
#include "driver/kernel/fuse.h"
#include "driver/kernel/mount.h"
#include "driver/kernel/pidfd.h"

namespace virtuserns::controller {

namespace {

constexpr int kEndTimeoutMs = 10'000;
constexpr int kDyingMs = 1'000;  // of one that has closed its connection, if that is why

// One that does not say what it lies on, or says so and is not given it, is not read: qemu would else read zeroes, or would
// look for what a stranger has written into the header.
Result<void> check_chain(const ImageSourceStep& step, const DirFd& proc, const std::vector<OpenImage>& images) {
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto& [path, format] = step.chain[i];
    const bool has_next = i + 1 < images.size();
    const std::string name = "image " + quote(path);
    if (format != "qcow2") {
      if (!has_next) continue;
      return fail(VIR_ERR_CONFIG_UNSUPPORTED, name + ": an image of format " + quote(format) + " lies on nothing");
    }
    const auto header = TRY(read_qcow2_header(TRY(reopen(proc, images[i].file, O_RDONLY))), name);
    if (header.has_data_file)
      return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                  name + ": its data is in another file, which is not supported: use 'qemu-img convert -O qcow2'");
    if (!header.backing.empty() && !has_next)
      return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                  name + " is an overlay on " + quote(header.backing) +
                      ", which is used only when the definition names it: add <userns:backing file='' format=''/> to "
                      "its <userns:image>");
    if (header.backing.empty() && has_next)
      return fail(VIR_ERR_CONFIG_UNSUPPORTED,
                  name + " is no overlay, but the definition has a <userns:backing> for it");
  }
  return {};
}

std::vector<std::string> arguments_for(const ImageSourceStep& step, const std::vector<OpenImage>& images) {
  std::vector<std::string> arguments;
  for (std::size_t i = images.size(); i-- > 0;) {  // what is below comes first
    const std::string n = std::to_string(i);
    const std::string rest =
        std::string(R"(,"discard":"unmap","read-only":)") + (step.is_readonly || i > 0 ? "true" : "false") + "}";
    const char* protocol = images[i].is_block ? "host_device" : "file";
    const auto& format = step.chain[i].format;
    std::string backing;
    if (format == "qcow2")
      backing = i + 1 < images.size() ? R"(,"backing":"d)" + std::to_string(i + 1) + "\"" : R"(,"backing":null)";
    arguments.insert(arguments.end(), {"--blockdev",
                                       std::string(R"({"driver":")") + protocol + R"(","node-name":"f)" + n +
                                           R"(","filename":"/images/)" + n + "\"" + rest,
                                       "--blockdev",
                                       R"({"driver":")" + format + R"(","node-name":"d)" + n + R"(","file":"f)" + n +
                                           "\"" + backing + rest});
  }
  // libfuse takes the number for a connection that is open already (fuse_session_mount of its fuse_lowlevel.h).
  arguments.insert(arguments.end(), {"--export", std::string("type=fuse,id=disk,node-name=d0,mountpoint=/dev/fd/3") +
                                                     (step.is_readonly ? "" : ",writable=on")});
  return arguments;
}

Result<std::vector<MountFd>> give_images(const ImageSourceStep& step, const std::vector<OpenImage>& images) {
  std::vector<MountFd> mounts;
  for (const auto& image : images) {
    MountFd mount = TRY(kernel::clone_mount(image.file, "", kernel::Depth::kTopOnly));
    const bool is_readonly = step.is_readonly || !mounts.empty();
    TRY(kernel::set_mount_attributes(mount,
                                     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | (image.is_block ? 0 : MOUNT_ATTR_NODEV) |
                                         (is_readonly ? MOUNT_ATTR_RDONLY : 0),
                                     image.is_block ? MOUNT_ATTR_NODEV : 0, kernel::Depth::kTopOnly));
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

// It could not be opened: mostly because nobody is there any more who would answer, and that one has said why.
Error why_not_served(const ImageSourceStep& step, Jailed jailed, const Error& error) {
  auto said = await_jailed(std::move(jailed), kDyingMs);
  std::string why = said && !trim(said->errors).empty() ? std::string(trim(said->errors)) : error.text;
  for (std::size_t i = 0; i < step.chain.size(); ++i) {  // the names that the host has for them
    const std::string inside = "/images/" + std::to_string(i);
    for (auto at = why.find(inside); at != std::string::npos; at = why.find(inside, at + step.chain[i].path.size()))
      why.replace(at, inside.size(), step.chain[i].path);
  }
  return fail(VIR_ERR_OPERATION_FAILED, "qemu-storage-daemon: " + printable(why, 1024));
}

}  // namespace

Result<OpenImage> find_image(const std::string& path) {
  OpenImage image{Fd(::open(path.c_str(), O_PATH | O_CLOEXEC))};
  if (!image.file) return sys_fail("open " + quote(path));
  struct stat st {};
  if (::fstat(image.file.get(), &st) != 0) return sys_fail("stat " + quote(path));
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
    return fail(VIR_ERR_CONFIG_UNSUPPORTED, quote(path) + " is neither a regular file nor a block device");
  image.is_block = S_ISBLK(st.st_mode);
  return image;
}

Result<Fd> reopen(const DirFd& proc, const Fd& place, int flags) {
  Fd file(::openat(proc.get(), ("self/fd/" + std::to_string(place.get())).c_str(), flags | O_CLOEXEC));
  if (!file) return sys_fail("open");
  return file;
}

Result<Fd> serve_disk(const ImageSourceStep& step, const ImageHelpersStep& helpers, const DirFd& proc,
                      const std::string& stage, std::vector<StorageDaemon>& running) {
  std::vector<OpenImage> images;
  for (const auto& file : step.chain) images.push_back(TRY(find_image(file.path)));
  if (images.front().is_block) return fail(VIR_ERR_CONFIG_UNSUPPORTED, "it is no regular file");
  TRY(check_chain(step, proc, images));
  auto fuse = TRY(kernel::make_fuse_file());
  auto mounts = TRY(give_images(step, images));
  const int connection = fuse.connection.get();
  auto jailed = TRY(start_in_jail({helpers.storage_daemon, arguments_for(step, images), std::span(&connection, 1),
                                   std::move(mounts), OpensFiles::kYes, helpers.filter, stage}));
  fuse.connection.reset();  // its own is now the only one: the file answers, or is dead
  auto disk = reopen(proc, fuse.mount, step.is_readonly ? O_RDONLY : O_RDWR);
  if (!disk) return why_not_served(step, std::move(jailed), disk.error());
  ::fcntl(jailed.errors.get(), F_SETFL, O_NONBLOCK);  // its last words are read without waiting for more
  running.push_back({std::move(jailed.process), std::move(jailed.errors), step.chain.front().path});
  return disk;
}

void end_storage(std::vector<StorageDaemon>& running) {
  for (const auto& daemon : running) (void)kernel::send_signal(daemon.process, SIGINT);
  for (const auto& daemon : running)
    if (!kernel::has_ended(daemon.process, kEndTimeoutMs)) (void)kernel::send_signal(daemon.process, SIGKILL);
  running.clear();
}

}  // namespace virtuserns::controller
