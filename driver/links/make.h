// A link on a bridge of the host for a user, if he has not as many as he may.
#pragma once

#include "driver/links/grants.h"
#include "driver/links/request.h"

namespace virtuserns::links {

// "vu1001-0": the host's end of the user's link `number`, below kMostUserLinks. Made under this name, in one message with the
// bridge, so that there is no moment in which it is somewhere and not counted.
[[nodiscard]] std::string host_name_of(uid_t uid, unsigned number);

// Counts those names that are on the bridge, and makes the next one, with its peer in `net`. VIR_ERR_RESOURCE_BUSY: he has all
// that `grant` gives. Raises CAP_NET_ADMIN. Not from two threads at once.
[[nodiscard]] Result<std::string> make_link(const LinkRequest& request, const LinkUser& user,
                                            const UserLinkGrant& grant, const NsFd& net);

}  // namespace virtuserns::links
