// The four containers of the talk, and one inside the first.
#pragma once

#include <string>

#include "tools/showinfo/host.h"
#include "tools/showinfo/subject.h"
#include "tools/showinfo/table.h"

namespace virtuserns::showinfo::test {

inline constexpr NamespaceId kHost = 4026531837, kAnna1 = 101, kAnna2 = 102, kElsa1 = 103, kElsa2 = 104, kInner = 201;

inline Process make_process(pid_t pid, const std::string& name, std::uint32_t uid, std::optional<NamespaceId> ns) {
  Process process;
  process.pid = pid;
  process.who.name = name;
  process.who.state = 'S';
  process.who.thread_group = pid;
  process.who.uid = process.who.gid = {uid, uid, uid, uid};
  process.who.has_memory = true;
  process.who.ns_pids = {pid};
  process.user_ns = ns;
  return process;
}

inline UserNamespace make_namespace(std::optional<NamespaceId> parent, std::uint32_t owner, IdMapLine line) {
  return {parent, owner, IdMaps{{line}, {line}}, 1, 0};
}

inline Host make_host() {
  Host host;
  host.own = kHost;
  host.namespaces = {{kHost, make_namespace(std::nullopt, 0, {0, 0, 4294967295U})},
                     {kAnna1, make_namespace(kHost, 1001, {0, 2000000, 65535})},
                     {kAnna2, make_namespace(kHost, 1001, {0, 2100000, 65535})},
                     {kElsa1, make_namespace(kHost, 1002, {0, 3000000, 65535})},
                     {kElsa2, make_namespace(kHost, 1002, {0, 3100000, 65535})},
                     {kInner, make_namespace(kAnna1, 2000000, {0, 2001000, 100})}};
  host.processes = {make_process(2, "kthreadd", 0, kHost),         make_process(50, "mywait", 1001, kHost),
                    make_process(60, "init", 3000000, kElsa1),     make_process(70, "init", 2000000, kAnna1),
                    make_process(80, "init", 3100000, kElsa2),     make_process(90, "init", 2100000, kAnna2),
                    make_process(91, "x\x1b[1m", 2001007, kInner), make_process(95, "secret", 7, std::nullopt)};
  host.processes[0].who.has_memory = false;
  host.domains = {{"anna-c1", "0f0e0d0c-0b0a-4908-8706-050403020100", 40, 0, kHost, 70, kAnna1}};
  host.hidden_count = 1;
  return host;
}

class SampleNames final : public Names {
 public:
  [[nodiscard]] std::string user(std::uint32_t uid) const override {
    return uid == 0 ? "root" : uid == 1001 ? "anna" : uid == 1002 ? "elsa" : std::to_string(uid);
  }
  [[nodiscard]] std::string group(std::uint32_t gid) const override { return user(gid); }
};

// Without capabilities until they are given.
inline Subject make_subject(std::uint32_t uid, NamespaceId ns, std::uint64_t capabilities = 0) {
  const auto process = make_process(4711, "sh", uid, ns);
  Subject subject{process.pid, process.who, ns, *make_host().namespaces.at(ns).maps, ""};
  subject.who.effective = subject.who.permitted = capabilities;
  return subject;
}

}  // namespace virtuserns::showinfo::test
