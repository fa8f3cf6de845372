// Who may ask for what, once connected: access_drivers = [ "owner" ] of virtusernsd.conf.
//
// Every procedure has a right in the table (table.cpp): an object and a permission, named as libvirt's access control names
// them. Administrators have all of them. Whoever else is connected (Caller::owns_only) has those of is_for_owners(), and of
// domains only on own ones: another's domain is for him what one is that does not exist, in lists, look-ups, calls and events. A
// procedure without a right is for administrators.
#pragma once

#include "driver/rpc/session.h"

namespace virtuserns::rpc {

struct Call;
struct Row;

enum class Object {
  kNone,        // nobody but administrators
  kConnection,  // the connection itself, the host
  kDomain,      // the domain that the arguments name
  kDefinition,  // of a domain, which the driver checks (DomainDriver::admit_definition), as it holds the domain's job then
};

enum class Permission {
  kGetattr,
  kRead,
  kReadSecure,
  kSearchDomains,
  kWrite,
  kSave,
  kDelete,
  kStart,
  kStop,
  kReset,
  kSuspend,
  kSendSignal,
  kOpenDevice,
  kExec,
  kOpenNamespace,
  kSetPassword,
  kCoreDump,
};

struct Right {
  Object object = Object::kNone;
  Permission permission = Permission::kGetattr;
};

// Whether somebody who is no administrator has it, of a domain: on own ones.
[[nodiscard]] bool is_for_owners(const Right& right);
// Before arguments are decoded. VIR_ERR_ACCESS_DENIED.
[[nodiscard]] Result<void> check_right(const Caller& caller, const Row& row);
// Of the domain in a call's arguments, before its handler. VIR_ERR_NO_DOMAIN, as if there were none.
[[nodiscard]] Result<void> check_domain(const Call& call, const Uuid& uuid);
// What lists and look-ups show.
[[nodiscard]] bool may_see(const Caller& caller, const std::optional<OwnerDef>& owner);
[[nodiscard]] Result<std::vector<DomainSummary>> visible_domains(const Call& call);
// The domain, or `missing`, which says that there is none.
[[nodiscard]] Result<DomainRef> visible_or(const Call& call, Result<DomainRef> found, const Error& missing);

}  // namespace virtuserns::rpc
