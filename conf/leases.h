// The durable ledger: which domain, or group of domains, holds which automatic id range.
//
// One small file for each lease, <dir>/<uuid> or <dir>/group-<name>: a torn one costs one domain its lease, never the others, and taking
// one does not rewrite the rest. The directory's lock file is held as long as the Ledger lives, so that two daemons
// cannot hand out ids from one ledger.
//
// A lease is on disk (file and directory fsynced) before `write` returns, and therefore before any process of the
// domain exists. Removing one need not be durable: a lease that comes back after a power failure belongs to no
// domain and is collected by the next start of the daemon. A program that knows no groups leaves their files alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/idmap.h"
#include "conf/uuid.h"

namespace virtuserns {

struct Lease {
  std::string name;  // of the domain when it was taken, or of the group; for people
  IdMaps maps;
  bool operator==(const Lease&) const = default;
};

// "virtuserns-lease 1", name, lines, checksum. A text whose checksum is wrong (torn, bit-flipped), whose maps the
// kernel would refuse, or that holds ids below 65536 is VIR_ERR_INTERNAL_ERROR with the reason.
[[nodiscard]] std::string format_lease(const Lease& lease);
[[nodiscard]] Result<Lease> parse_lease(std::string_view text);

// The name of the group whose lease a file of the ledger's directory is.
[[nodiscard]] std::optional<std::string> group_of_lease(const std::string& file);

class Ledger {
 public:
  struct Opened;
  // Makes the directory when there is none and takes the lock (VIR_ERR_RESOURCE_BUSY when another daemon keeps it for
  // half a second).
  // Broken files are renamed to ".broken-<name>" and reported; of two leases that overlap the one of `is_live` stays, else
  // that of a group, else the one with the lower uuid, and the other is set aside.
  [[nodiscard]] static Result<Opened> open(const std::string& directory, const std::vector<Uuid>& live);

  [[nodiscard]] const std::map<Uuid, Lease>& all() const { return leases_; }
  [[nodiscard]] Result<void> write(const Uuid& domain, Lease lease);
  void remove(const Uuid& domain);

  // The same of groups, by their names (validate_id_group).
  [[nodiscard]] const std::map<std::string, Lease>& groups() const { return groups_; }
  [[nodiscard]] Result<void> write_group(const std::string& name, IdMaps maps);
  void remove_group(const std::string& name);

 private:
  [[nodiscard]] Result<void> write_file(const std::string& name, const Lease& lease, const Lease* old) const;

  std::string directory_;
  Fd lock_;
  std::map<Uuid, Lease> leases_;
  std::map<std::string, Lease> groups_;
};

struct Ledger::Opened {
  Ledger ledger;
  std::vector<std::string> problems;
};

}  // namespace virtuserns
