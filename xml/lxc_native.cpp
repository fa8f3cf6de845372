#include "xml/lxc_native.h"

#include <algorithm>
#include <map>

#include "conf/base/text.h"
#include "xml/devices.h"
#include "xml/lxc_network.h"
#include "xml/metadata.h"

namespace virtuserns::xml {

namespace {

constexpr std::uint64_t kDefaultMemoryKib = 65536;  // libvirt's, when the file sets no limit

class Importer {
 public:
  Result<LxcImport> import(std::string_view text) {
    for (const auto raw : split(text, '\n')) {
      ++line_;
      const auto row = trim(raw);
      if (row.empty() || row.front() == '#') continue;
      const auto equals = row.find('=');
      if (equals == std::string_view::npos) return refuse(quote(row) + " is not 'key = value'");
      const auto key = trim(row.substr(0, equals));
      auto value = trim(row.substr(equals + 1));
      if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front())
        value = value.substr(1, value.size() - 2);
      TRY(take(key, value), where());
    }
    TRY(finish());
    return std::move(result_);
  }

 private:
  using Handler = Result<void> (Importer::*)(std::string_view value);

  [[nodiscard]] std::string where() const { return "line " + std::to_string(line_); }
  [[nodiscard]] Error refuse(const std::string& text) const {
    return fail(VIR_ERR_INVALID_ARG, where() + ": " + text);
  }
  [[nodiscard]] static Error bad(const std::string& text) { return fail(VIR_ERR_INVALID_ARG, text); }
  void ignore(const std::string& what) { result_.ignored.push_back(where() + ": " + what); }

  Result<void> take(std::string_view key, std::string_view value) {
    static const std::map<std::string_view, Handler> kHandlers = {
        {"lxc.uts.name", &Importer::name},
        {"lxc.utsname", &Importer::name},
        {"lxc.arch", &Importer::arch},
        {"lxc.rootfs", &Importer::rootfs},
        {"lxc.rootfs.path", &Importer::rootfs},
        {"lxc.mount.entry", &Importer::mount_entry},
        {"lxc.tty", &Importer::tty},
        {"lxc.tty.max", &Importer::tty},
        {"lxc.idmap", &Importer::idmap},
        {"lxc.id_map", &Importer::idmap},
        {"lxc.cap.drop", &Importer::cap_drop},
        {"lxc.cap.keep", &Importer::cap_keep},
        {"lxc.init.cmd", &Importer::init_cmd},
        {"lxc.init_cmd", &Importer::init_cmd},
        {"lxc.init.cwd", &Importer::init_cwd},
        {"lxc.init.uid", &Importer::init_uid},
        {"lxc.init.gid", &Importer::init_gid},
        {"lxc.environment", &Importer::environment},
    };
    if (value.empty()) return clear(key);
    const auto found = kHandlers.find(key);
    if (found != kHandlers.end()) return (this->*found->second)(value);
    if (key.starts_with("lxc.net.") || key.starts_with("lxc.network."))
      return networks_.take(key, value, [this](const std::string& what) { ignore(what); });
    for (const std::string_view prefix : {"lxc.cgroup2.", "lxc.cgroup."})
      if (key.starts_with(prefix) && cgroup(key.substr(prefix.size()), value)) return {};
    ignore("key " + quote(key) + " is not imported");
    return {};
  }

  // "key =" resets what came before; the lists are the ones of which that is said (lxc.container.conf(5)).
  Result<void> clear(std::string_view key) {
    if (key == "lxc.idmap")
      result_.def.idmap = {};
    else if (key == "lxc.cap.drop" || key == "lxc.cap.keep")
      result_.def.features.capabilities.clear();
    else if (key == "lxc.environment")
      result_.def.os.init_env.clear();
    else if (key == "lxc.mount.entry")
      mounts_.clear();
    else
      ignore("key " + quote(key) + " has no value");
    return {};
  }

  Result<void> name(std::string_view value) { return result_.def.name = value, Result<void>(); }

  Result<void> arch(std::string_view value) {
    static const std::map<std::string_view, std::string_view> kArches = {
        {"x86", "i686"},        {"i386", "i686"},    {"i486", "i686"},       {"i586", "i686"},
        {"i686", "i686"},       {"amd64", "x86_64"}, {"x86_64", "x86_64"},   {"arm64", "aarch64"},
        {"aarch64", "aarch64"}, {"armhf", "armv7l"}, {"armv7l", "armv7l"},   {"ppc64le", "ppc64le"},
        {"ppc64el", "ppc64le"}, {"s390x", "s390x"},  {"riscv64", "riscv64"}, {"linux64", "x86_64"},
        {"linux32", "i686"}};
    const auto found = kArches.find(value);
    if (found == kArches.end()) return ignore("architecture " + quote(value) + " is not known"), Result<void>();
    return result_.def.os.arch = found->second, Result<void>();
  }

  Result<void> rootfs(std::string_view value) {
    FilesystemDef root;
    for (const std::string_view storage :
         {"dir:", "loop:", "nbd:", "zfs:", "btrfs:", "lvm:", "overlay:", "overlayfs:"}) {
      if (!value.starts_with(storage)) continue;
      if (storage != "dir:" && storage != "btrfs:" && storage != "loop:" && storage != "lvm:")
        return ignore("root filesystem " + quote(value) + ": storage " + quote(storage) + " is not imported"),
               Result<void>();
      value.remove_prefix(storage.size());
      if (storage == "loop:")
        root.type = FilesystemType::kFile, root.driver_type = "loop", root.driver_format = "raw";
      break;
    }
    if (value.starts_with("/dev/")) root.type = FilesystemType::kBlock;
    root.source = value;
    root.target = "/";
    root_ = std::move(root);
    return {};
  }

  // "source target type options [dump] [pass]", blanks in names written \040 as in fstab(5).
  Result<void> mount_entry(std::string_view value) {
    const auto words = split_blanks(value);
    if (words.size() < 4) return bad("mount entry " + quote(value) + " has not the four fields of fstab");
    const auto options = split(words[3], ',');
    const auto has = [&](std::string_view option) {
      return std::find(options.begin(), options.end(), option) != options.end();
    };
    FilesystemDef fs;
    fs.source = unescape(words[0]);
    fs.target = unescape(words[1]);
    fs.readonly = has("ro");
    static constexpr std::string_view kOwn[] = {"proc",   "sysfs",   "devpts",     "mqueue",
                                                "cgroup", "cgroup2", "securityfs", "devtmpfs"};
    // Every container has these without being told.
    if (std::find(std::begin(kOwn), std::end(kOwn), words[2]) != std::end(kOwn)) return {};
    if (words[2] == "tmpfs") {
      const auto size =
          std::find_if(options.begin(), options.end(), [](std::string_view o) { return o.starts_with("size="); });
      if (size == options.end()) return ignore("tmpfs on " + quote(fs.target) + " has no size"), Result<void>();
      const auto bytes = parse_size(size->substr(5));
      if (!bytes)
        return bad("size " + quote(size->substr(5)) + " of tmpfs on " + quote(fs.target) +
                   " is not a number of bytes");
      fs.type = FilesystemType::kRam;
      fs.ram_usage_kib = *bytes / 1024;
      fs.source.clear();
    } else if (has("bind") || has("rbind")) {
      fs.type = FilesystemType::kMount;
    } else if (fs.source.starts_with("/dev/")) {
      fs.type = FilesystemType::kBlock;
    } else {
      return ignore("mount of " + quote(fs.source) + " on " + quote(fs.target) + " is not imported"), Result<void>();
    }
    mounts_.push_back(std::move(fs));
    return {};
  }

  Result<void> tty(std::string_view value) {
    const auto count = parse_number<std::uint32_t>(value);
    if (!count || *count > 64) return bad("number of terminals " + quote(value) + " is not from 0 to 64");
    result_.def.consoles.assign(*count, ConsoleDef{});
    for (std::uint32_t i = 0; i < *count; ++i) result_.def.consoles[i].target_port = i;
    return {};
  }

  Result<void> idmap(std::string_view value) {
    const auto words = split_blanks(value);
    const bool is_known = words.size() == 4 && (words[0] == "u" || words[0] == "g" || words[0] == "b");
    const auto inside = is_known ? parse_number<std::uint32_t>(words[1]) : std::nullopt;
    const auto host = is_known ? parse_number<std::uint32_t>(words[2]) : std::nullopt;
    const auto count = is_known ? parse_number<std::uint32_t>(words[3]) : std::nullopt;
    if (!inside || !host || !count) return bad("id map " + quote(value) + " is not 'u|g CONTAINER-ID HOST-ID COUNT'");
    if (words[0] != "g") result_.def.idmap.uid.push_back({*inside, *host, *count});
    if (words[0] != "u") result_.def.idmap.gid.push_back({*inside, *host, *count});
    return {};
  }

  Result<void> cap_drop(std::string_view value) { return capabilities(value, false); }
  Result<void> cap_keep(std::string_view value) {
    result_.def.features.capabilities_policy = CapabilitiesPolicy::kDeny;
    return value == "none" ? Result<void>() : capabilities(value, true);
  }
  Result<void> capabilities(std::string_view value, bool is_on) {
    auto& features = result_.def.features;
    features.present = features.capabilities_present = true;
    for (const auto word : split_blanks(value)) features.capabilities[std::string(word)] = is_on;
    return {};
  }

  Result<void> init_cmd(std::string_view value) {
    const auto words = split_blanks(value);
    result_.def.os.init = words.front();
    result_.def.os.init_args.assign(words.begin() + 1, words.end());
    return {};
  }
  Result<void> init_cwd(std::string_view value) { return result_.def.os.init_dir = value, Result<void>(); }
  Result<void> init_uid(std::string_view value) { return numeric_owner(value, result_.def.os.init_user); }
  Result<void> init_gid(std::string_view value) { return numeric_owner(value, result_.def.os.init_group); }
  Result<void> numeric_owner(std::string_view value, std::string& owner) {
    if (!parse_number<std::uint32_t>(value)) return bad("id " + quote(value) + " is not a number");
    return owner = "+" + std::string(value), Result<void>();
  }

  Result<void> environment(std::string_view value) {
    const auto equals = value.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == value.size())
      return ignore("environment " + quote(value) + " has no value"), Result<void>();
    result_.def.os.init_env.push_back({std::string(value.substr(0, equals)), std::string(value.substr(equals + 1))});
    return {};
  }

  // False: not a key that a domain has, or not a value that says anything.
  bool cgroup(std::string_view key, std::string_view value) {
    auto& def = result_.def;
    const auto kib = [&](std::optional<std::uint64_t>& limit) {
      const auto bytes = parse_size(value);
      if (bytes) limit = *bytes / 1024;
      return bytes.has_value();
    };
    if (key == "memory.limit_in_bytes" || key == "memory.max") return kib(def.memtune.hard_limit_kib);
    if (key == "memory.soft_limit_in_bytes" || key == "memory.high") return kib(def.memtune.soft_limit_kib);
    if (key == "memory.memsw.limit_in_bytes") return kib(def.memtune.swap_hard_limit_kib);
    if (key == "memory.swap.max") return kib(swap_kib_);
    const auto number = parse_number<std::uint64_t>(value);
    if (key == "cpu.shares" && number) return def.cputune.shares = number, true;
    if (key == "cpu.cfs_period_us" && number) return def.cputune.period_us = number, true;
    const auto quota = parse_number<std::int64_t>(value);
    if (key == "cpu.cfs_quota_us" && quota) return def.cputune.quota_us = quota, true;
    if (key == "cpu.max") return cpu_max(value);
    if (key == "pids.max" && number && *number > 0) return pids_limit_ = number, true;
    if (key == "cpuset.cpus" || key == "cpuset.mems") return cpuset(key == "cpuset.cpus", value);
    return blkio(key, value);
  }

  bool cpu_max(std::string_view value) {
    const auto words = split_blanks(value);
    if (words.size() > 1) result_.def.cputune.period_us = parse_number<std::uint64_t>(words[1]);
    result_.def.cputune.quota_us = words[0] == "max" ? -1 : parse_number<std::int64_t>(words[0]);
    return result_.def.cputune.quota_us.has_value();
  }

  bool cpuset(bool is_cpus, std::string_view value) {
    const auto bits = parse_bitmap(value);
    if (!bits) return false;
    if (is_cpus) return result_.def.vcpu.cpuset = format_bitmap(*bits), true;
    result_.def.numatune = {
        .mode = "strict", .placement = "static", .nodeset = format_bitmap(*bits), .present = true};
    return true;
  }

  // "8:0 1000": the device by number, for which /dev/block has a name.
  bool blkio(std::string_view key, std::string_view value) {
    auto& tune = result_.def.blkio;
    if (key == "blkio.weight") return tune.weight = parse_number<std::uint32_t>(value), tune.weight.has_value();
    const auto words = split_blanks(value);
    const auto numbers = words.empty() ? std::vector<std::string_view>() : split(words[0], ':');
    const auto amount = words.size() == 2 ? parse_number<std::uint64_t>(words[1]) : std::nullopt;
    if (!amount || numbers.size() != 2 || !parse_number<std::uint32_t>(numbers[0]) ||
        !parse_number<std::uint32_t>(numbers[1]))
      return false;
    const bool is_small = *amount <= 0xffffffffU;
    BlkioDevice change;
    const auto small = static_cast<std::uint32_t>(*amount);
    if (key == "blkio.device_weight" && is_small)
      change.weight = small;
    else if (key == "blkio.throttle.read_iops_device" && is_small)
      change.read_iops = small;
    else if (key == "blkio.throttle.write_iops_device" && is_small)
      change.write_iops = small;
    else if (key == "blkio.throttle.read_bps_device")
      change.read_bytes = amount;
    else if (key == "blkio.throttle.write_bps_device")
      change.write_bytes = amount;
    else
      return false;
    change.path = "/dev/block/" + std::string(words[0]);
    merge_device(change);
    return true;
  }

  void merge_device(const BlkioDevice& change) {
    auto& devices = result_.def.blkio.devices;
    auto found =
        std::find_if(devices.begin(), devices.end(), [&](const BlkioDevice& d) { return d.path == change.path; });
    if (found == devices.end()) found = devices.insert(devices.end(), BlkioDevice{.path = change.path});
    if (change.weight) found->weight = change.weight;
    if (change.read_iops) found->read_iops = change.read_iops;
    if (change.write_iops) found->write_iops = change.write_iops;
    if (change.read_bytes) found->read_bytes = change.read_bytes;
    if (change.write_bytes) found->write_bytes = change.write_bytes;
  }

  Result<void> finish() {
    auto& def = result_.def;
    if (!root_) return bad("the configuration has no root filesystem: set lxc.rootfs.path");
    if (def.name.empty()) return bad("the configuration has no name: set lxc.uts.name");
    if (swap_kib_ && def.memtune.hard_limit_kib)
      def.memtune.swap_hard_limit_kib = *def.memtune.hard_limit_kib + *swap_kib_;
    def.max_memory_kib = def.memtune.hard_limit_kib.value_or(kDefaultMemoryKib);
    def.vcpu.placement = "static";
    // A target below the root's own path is meant inside the container.
    for (auto& fs : mounts_) {
      if (root_->source.size() > 1 && fs.target.starts_with(root_->source + "/"))
        fs.target.erase(0, root_->source.size());
      if (!fs.target.starts_with('/')) fs.target.insert(0, "/");
    }
    def.filesystems = std::move(mounts_);
    def.filesystems.insert(def.filesystems.begin(), std::move(*root_));
    TRY(networks_.finish(def, [this](const std::string& what) { result_.ignored.push_back(what); }));
    if (!pids_limit_) return {};
    return set_metadata(def, "<domain><pids limit='" + std::to_string(*pids_limit_) + "'/></domain>", "userns",
                        kUsernsUri);
  }

  static std::string unescape(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const bool is_escape = text.substr(i).starts_with("\\040");
      result += is_escape ? ' ' : text[i];
      if (is_escape) i += 3;
    }
    return result;
  }

  // Bytes, with K, M, G or T.
  static std::optional<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t scale = 1;
    constexpr std::string_view kLetters = "kmgt";
    if (!text.empty()) {
      const auto letter = kLetters.find(static_cast<char>(text.back() | 0x20));
      if (letter != std::string_view::npos) {
        for (std::size_t i = 0; i <= letter; ++i) scale *= 1024;
        text.remove_suffix(1);
      }
    }
    const auto number = parse_number<std::uint64_t>(text);
    if (!number || *number > (std::uint64_t{1} << 62) / scale) return std::nullopt;
    return *number * scale;
  }

  LxcImport result_;
  std::size_t line_ = 0;
  std::optional<FilesystemDef> root_;
  std::vector<FilesystemDef> mounts_;
  LxcNetworks networks_;
  std::optional<std::uint64_t> swap_kib_, pids_limit_;
};

}  // namespace

Result<LxcImport> parse_lxc_config(std::string_view text) {
  if (text.size() > kMaxLxcConfigBytes) return fail(VIR_ERR_INVALID_ARG, "the configuration has more than 1 MiB");
  if (!is_utf8(text)) return fail(VIR_ERR_INVALID_ARG, "the configuration is not valid UTF-8");
  return Importer().import(text);
}

}  // namespace virtuserns::xml
