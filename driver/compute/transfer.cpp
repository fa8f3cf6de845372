#include "driver/compute/transfer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "driver/compute/frame.h"

namespace virtuserns::compute {
namespace {

constexpr int kVersion = 1;
constexpr std::size_t kChunk = 1024 * 1024;

Result<void> write_all(const Fd& to, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(to.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return sys_fail("send the disk");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Result<void> read_all(const Fd& from, char* to, std::size_t size) {
  while (size > 0) {
    const auto got = ::read(from.get(), to, size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sys_fail("receive the disk");
    if (got == 0)
      return fail(VIR_ERR_RPC, "the disk was cut off on its way: the other host, or what connects to it, has ended");
    to += got;
    size -= static_cast<std::size_t>(got);
  }
  return {};
}

struct Run {
  std::uint64_t offset = 0, length = 0;
};

std::string encode(const Run& run) {
  std::string bytes;
  for (const auto value : {run.offset, run.length})
    for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 255);
  return bytes;
}

Run decode(const std::array<char, 16>& bytes) {
  std::uint64_t values[2] = {};
  for (std::size_t i = 0; i < bytes.size(); ++i)
    values[i / 8] = values[i / 8] << 8 | static_cast<unsigned char>(bytes[i]);
  return {values[0], values[1]};
}

// The next written part from `offset` on; of length 0: there is none.
Result<Run> next_run(const Fd& disk, std::uint64_t offset, std::uint64_t size) {
  const auto begin = ::lseek(disk.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (begin < 0 && errno == ENXIO) return Run{size, 0};
  if (begin < 0) return sys_fail("look for what is written of the disk");
  const auto end = ::lseek(disk.get(), begin, SEEK_HOLE);
  if (end < 0) return sys_fail("look for what is written of the disk");
  return Run{static_cast<std::uint64_t>(begin),
             std::min(static_cast<std::uint64_t>(end), size) - static_cast<std::uint64_t>(begin)};
}

}  // namespace

Json to_json(const Luggage& luggage) {
  Json files = Json::array();
  for (const auto& file : luggage.config_drive)
    files.push_back({{"path", file.path}, {"content", encode_base64(file.content)}, {"mode", file.mode}});
  return {{"version", kVersion}, {"disk_bytes", luggage.disk_bytes}, {"config_drive", files}};
}

Result<Luggage> read_luggage(const Json& json) {
  const auto object = TRY(Object::of(json, "the luggage"));
  TRY(object.number("version", kVersion, kVersion));
  const auto bytes = TRY(object.number("disk_bytes", 0, kMaxDiskGb << 30));
  auto config_drive = TRY(read_files(object, "config_drive"));
  return Luggage{bytes, std::move(config_drive)};
}

Result<void> send_disk(const Fd& to, const Fd& disk, const Luggage& luggage) {
  TRY(write_frame(to, format_json(to_json(luggage))));
  if (luggage.disk_bytes == 0) return {};
  std::string buffer(kChunk, '\0');
  for (std::uint64_t at = 0; at < luggage.disk_bytes;) {
    const auto run = TRY(next_run(disk, at, luggage.disk_bytes));
    if (run.length == 0) break;
    TRY(write_all(to, encode(run)));
    for (std::uint64_t done = 0; done < run.length;) {
      const auto wanted = std::min<std::uint64_t>(kChunk, run.length - done);
      const auto got = ::pread(disk.get(), buffer.data(), wanted, static_cast<off_t>(run.offset + done));
      if (got <= 0) return sys_fail("read the disk", got == 0 ? EIO : errno);
      TRY(write_all(to, {buffer.data(), static_cast<std::size_t>(got)}));
      done += static_cast<std::uint64_t>(got);
    }
    at = run.offset + run.length;
  }
  return write_all(to, encode({luggage.disk_bytes, 0}));
}

Result<Luggage> receive_luggage(const Fd& from) {
  const auto frame = TRY(read_frame(from));
  if (!frame) return fail(VIR_ERR_RPC, "the other host sends nothing");
  return read_luggage(TRY(parse_json(*frame)));
}

Result<void> receive_disk(const Fd& from, const Fd& disk, std::uint64_t disk_bytes) {
  if (::ftruncate(disk.get(), static_cast<off_t>(disk_bytes)) != 0) return sys_fail("give the disk its size");
  std::string buffer(kChunk, '\0');
  for (std::uint64_t at = 0;;) {
    std::array<char, 16> header{};
    TRY(read_all(from, header.data(), header.size()));
    const auto run = decode(header);
    if (run.offset < at || run.offset > disk_bytes || run.length > disk_bytes - run.offset)
      return fail(VIR_ERR_RPC, "the disk that the other host sends is damaged");
    if (run.length == 0) break;
    for (std::uint64_t done = 0; done < run.length;) {
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, run.length - done));
      TRY(read_all(from, buffer.data(), wanted));
      if (::pwrite(disk.get(), buffer.data(), wanted, static_cast<off_t>(run.offset + done)) !=
          static_cast<ssize_t>(wanted))
        return sys_fail("write the disk");
      done += wanted;
    }
    at = run.offset + run.length;
  }
  if (::fdatasync(disk.get()) != 0) return sys_fail("write the disk");
  return {};
}

}  // namespace virtuserns::compute
