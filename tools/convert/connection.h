// The questions of a conversion to libvirt. For domains.cpp, running.cpp and way_back.cpp.
#pragma once

#include <string>

#include "driver/client/handles.h"

namespace virtuserns::convert {

using client::Connection;
using client::Domain;
using client::last_error;
using client::open_connection;
using client::read_xml;

// Null: there is none.
[[nodiscard]] Result<Domain> find_domain(const Connection& connection, const std::string& uuid);
[[nodiscard]] Result<bool> is_active(const Domain& domain);
// What others have asked of the machine and is under way is done when this returns: a snapshot of a client that was killed, the
// end of a process. Until then definitions, states and locks do not say what will be.
[[nodiscard]] Result<void> await_jobs(const Domain& domain, const std::string& disk_target);

}  // namespace virtuserns::convert
