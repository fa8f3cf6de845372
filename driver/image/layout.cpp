#include "driver/image/layout.h"

#include <blkid/blkid.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <memory>

#include "conf/base/text.h"
#include "driver/image/superblock.h"

namespace virtuserns::image {

namespace {

constexpr std::uint64_t kSectorBytes = 512;  // of libblkid's numbers, whatever the disk has

struct Free {
  void operator()(blkid_probe probe) const { ::blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, Free>;

Error refuse(std::string what) { return fail(VIR_ERR_CONFIG_UNSUPPORTED, std::move(what)); }

Result<std::uint64_t> size_of(const Fd& image) {
  struct stat st {};
  if (::fstat(image.get(), &st) != 0) return sys_fail("stat");
  if (!S_ISBLK(st.st_mode)) return static_cast<std::uint64_t>(st.st_size);
  std::uint64_t bytes = 0;
  if (::ioctl(image.get(), BLKGETSIZE64, &bytes) != 0) return sys_fail("size of the device");
  return bytes;
}

Result<Probe> make_probe(const Fd& image, std::uint64_t offset, std::uint64_t size) {
  Probe probe(::blkid_new_probe());
  if (!probe || ::blkid_probe_set_device(probe.get(), image.get(), static_cast<blkid_loff_t>(offset),
                                         static_cast<blkid_loff_t>(size)) != 0)
    return sys_fail("probe the image");
  return probe;
}

Result<Wanted> find_partition(const Fd& image, std::uint32_t number, std::uint64_t size) {
  const auto probe = TRY(make_probe(image, 0, size));
  ::blkid_probe_enable_superblocks(probe.get(), 0);
  ::blkid_probe_enable_partitions(probe.get(), 1);
  const auto list = ::blkid_probe_get_partitions(probe.get());
  if (!list) return refuse("it has no partition table");
  const auto partition = ::blkid_partlist_get_partition_by_partno(list, static_cast<int>(number));
  if (!partition) {
    std::string known;
    const int count = std::min(::blkid_partlist_numof_partitions(list), 64);
    for (int i = 0; i < count; ++i)
      if (const auto other = ::blkid_partlist_get_partition(list, i))
        known += " " + std::to_string(::blkid_partition_get_partno(other));
    return refuse("it has no partition " + std::to_string(number) + (known.empty() ? "" : ", only" + known));
  }
  const auto start = ::blkid_partition_get_start(partition), sectors = ::blkid_partition_get_size(partition);
  const auto end = size / kSectorBytes;
  if (start < 0 || sectors <= 0 || static_cast<std::uint64_t>(start) >= end ||
      static_cast<std::uint64_t>(sectors) > end - static_cast<std::uint64_t>(start))
    return refuse("partition " + std::to_string(number) + " reaches beyond the end of the image");
  return Wanted{0, static_cast<std::uint64_t>(start) * kSectorBytes,
                static_cast<std::uint64_t>(sectors) * kSectorBytes};
}

Result<std::string> type_at(const Fd& image, const Wanted& place) {
  const auto probe = TRY(make_probe(image, place.offset_bytes, place.size_bytes));
  ::blkid_probe_enable_superblocks(probe.get(), 1);
  ::blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE);
  ::blkid_probe_enable_partitions(probe.get(), 1);
  const int status = ::blkid_do_safeprobe(probe.get());
  if (status == -2)
    return refuse("several file systems are recognised in it: remove what is left of the others (wipefs)");
  if (status < 0) return refuse("it cannot be read");
  const char* value = nullptr;
  if (::blkid_probe_lookup_value(probe.get(), "TYPE", &value, nullptr) == 0 && value) return std::string(value);
  if (::blkid_probe_lookup_value(probe.get(), "PTTYPE", &value, nullptr) == 0)
    return refuse("it is a whole disk with partitions: say which, by <userns:image target='' partition='N'/>");
  return refuse("no file system was recognised in it");
}

}  // namespace

Result<Found> find_filesystem(const Fd& image, const Wanted& wanted) {
  const auto size = TRY(size_of(image));
  Wanted place = wanted;
  if (wanted.partition != 0) place = TRY(find_partition(image, wanted.partition, size));
  if (place.offset_bytes >= size) return refuse("it ends before byte " + std::to_string(place.offset_bytes));
  if (place.size_bytes == 0) place.size_bytes = size - place.offset_bytes;
  if (place.size_bytes > size - place.offset_bytes)
    return refuse("it has not " + std::to_string(place.size_bytes) + " bytes from byte " +
                  std::to_string(place.offset_bytes) + " on");
  auto type = TRY(type_at(image, place));
  TRY(check_superblock(image, type, place.offset_bytes));
  if (type == "ext2" || type == "ext3") type = "ext4";  // the one driver that the kernel has for all three
  return Found{std::move(type), place.offset_bytes, place.size_bytes};
}

}  // namespace virtuserns::image
