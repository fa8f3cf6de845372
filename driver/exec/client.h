// One connection to virtusernsd, for one command. Synchronous: whoever waits too long interrupts the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/result.h"
#include "conf/exec.h"
#include "driver/rpc/message.h"
#include "driver/rpc/protocol.h"

namespace virtuserns::exec {

// "userns:///system", "userns+unix:///session?socket=/run/x/virtusernsd-sock"
struct Address {
  std::string name;    // as the daemon is told
  std::string socket;  // where it listens
};
[[nodiscard]] Result<Address> parse_uri(const std::string& uri);
[[nodiscard]] std::string default_uri();

struct Started {
  std::int32_t status = 0;  // 0: it runs; else the exit status, and `text` says why
  std::string text;
  std::vector<Fd> fds;  // the socket of conf/exec.h, then three pipes or a terminal
};

class Client {
 public:
  [[nodiscard]] static Result<Client> connect(const Address& address);
  // By id, uuid or name, in virsh's order.
  [[nodiscard]] Result<DomainRef> find_domain(const std::string& what);
  // All of them, in the order of the daemon.
  [[nodiscard]] Result<std::vector<DomainRef>> list_domains();
  // The live definition of one that runs, else the persistent one.
  [[nodiscard]] Result<std::string> read_xml(const DomainRef& domain);
  // `program`: what is run in the place of what the command names (validate_program of conf/exec.h), or empty.
  [[nodiscard]] Result<Started> exec(const DomainRef& domain, const ExecDef& command, Fd program = {});

 private:
  explicit Client(SocketFd socket)
      : socket_(std::move(socket)),
        budget_(std::make_unique<rpc::InputBudget>(rpc::kMaxFrameBytes)),
        receiver_(std::make_unique<rpc::Receiver>(*budget_)) {}
  [[nodiscard]] Result<void> log_in(const Address& address);
  // An error of the daemon becomes an Error with its code and whole text.
  [[nodiscard]] Result<rpc::Message> exchange(rpc::Header header, rpc::Frame frame);
  template <class Reply, class Args>
  [[nodiscard]] Result<Reply> call(std::int32_t procedure, const Args& args);
  [[nodiscard]] Result<rpc::Message> next_message();

  SocketFd socket_;
  std::unique_ptr<rpc::InputBudget> budget_;
  std::unique_ptr<rpc::Receiver> receiver_;
  std::uint32_t serial_ = 0;
};

}  // namespace virtuserns::exec
