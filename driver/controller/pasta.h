// pasta(1), of Debian's package passt: the network of one <interface type='user'>, by two processes of it.
//
//   host's network  <- uplink ->  a network namespace between  <- guest ->  the container's
//
// Two, because pasta connects to whatever address a packet from its tap names, 127.0.0.1 and ::1 among them (--no-map-gw is about
// the gateway alone), and container root can put any packet there: one pasta alone would lead to whatever listens on the host's
// loopback. The one that reads the container's packets therefore has a loopback of its own, that of the namespace between, and the
// other one reads only what the kernel makes of its sockets. docs/decisions/0016-passt-twice.md
#pragma once

#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "driver/controller/plan.h"

namespace virtuserns::controller {

// The options of each, without those that name the namespaces.
[[nodiscard]] std::vector<std::string> uplink_words(const UserLinkStep& step);
[[nodiscard]] std::vector<std::string> guest_words(const UserLinkStep& step);

struct NamespacePair {
  NsFd user, net;  // `user` owns `net`, and belongs to the domain's host uid
};
// The one between: new, with nothing in it.
[[nodiscard]] Result<NamespacePair> make_between(const LaunchPlan& plan, const DirFd& proc);

class Pasta {
 public:
  // As the domain's own host ids, without a capability of ours: what it may do in `target` is the kernel's to say, because that
  // belongs to those ids. `from`: the network namespace whose sockets it uses; null: ours. Returns when the tap is there.
  // Only from a single-threaded process, at whose end it is killed.
  [[nodiscard]] static Result<Pasta> start(const LaunchPlan& plan, std::vector<std::string> words,
                                           const NamespacePair& target, const NsFd* from);
  Pasta(Pasta&&) = default;
  Pasta& operator=(Pasta&&) = delete;
  ~Pasta();  // kills it
  [[nodiscard]] const PidFd& process() const { return process_; }
  // What it says, its standard error; not blocking.
  [[nodiscard]] const Fd& said() const { return said_; }
  void close_said() { said_.reset(); }
  // After its end: "was killed by signal 9".
  [[nodiscard]] std::string why_ended();

 private:
  Pasta(PidFd process, Fd said) : process_(std::move(process)), said_(std::move(said)) {}
  [[nodiscard]] Result<void> await(const Fd& ready);

  PidFd process_;
  Fd said_;
};

}  // namespace virtuserns::controller
