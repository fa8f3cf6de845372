#include "tools/drill/inside.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <chrono>

#include "conf/base/text.h"

namespace virtuserns::drill {

namespace {

constexpr std::size_t kMaxOutput = 1024 * 1024;
constexpr auto kLimit = std::chrono::minutes(5);
using Clock = std::chrono::steady_clock;

Result<exec::Started> start(exec::Client& client, const DomainRef& domain, Fd program, const char* option) {
  ExecDef command;
  for (const char* word : {"virtuserns-drill", option})
    if (*word != '\0') command.arguments.push_back(std::string(word));
  auto started = TRY(client.exec(domain, command, std::move(program)));
  if (started.status != 0) return fail(VIR_ERR_OPERATION_FAILED, "run the probes: " + started.text);
  return started;
}

// Up to the end of the text, or of its first line.
Result<std::string> read_text(const Fd& fd, bool is_one_line) {
  std::string text;
  const auto deadline = Clock::now() + kLimit;
  for (;;) {
    if (is_one_line && text.ends_with('\n')) return text;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd entry{fd.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) <= 0)
      return fail(VIR_ERR_OPERATION_TIMEOUT, "the probes do not end");
    char buffer[4096];
    const auto got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
    if (text.size() > kMaxOutput)
      return fail(VIR_ERR_OPERATION_FAILED, "the probes say more than they can have to say");
  }
}

Result<int> wait_for_end(const Fd& socket) {
  pollfd entry{socket.get(), POLLIN, 0};
  std::array<std::uint8_t, kMaxExecMessage> buffer{};
  if (::poll(&entry, 1, 10'000) <= 0) return fail(VIR_ERR_OPERATION_TIMEOUT, "the probes do not end");
  const auto got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
  if (got <= 0) return fail(VIR_ERR_OPERATION_FAILED, "the domain ended while the probes ran");
  return TRY(xdr::decode<ExecEnded>(std::span(buffer).first(static_cast<std::size_t>(got)))).wait_status;
}

}  // namespace

Result<Fd> seal_program(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st {};
  if (!file || ::fstat(file.get(), &st) != 0) return sys_fail("open " + quote(path));
  Fd memory(::memfd_create("virtuserns-drill", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) return sys_fail("make memory");
  for (off_t at = 0; at < st.st_size;)
    if (::sendfile(memory.get(), file.get(), &at, static_cast<std::size_t>(st.st_size - at)) <= 0)
      return sys_fail("copy " + quote(path));
  if (::fchmod(memory.get(), 0555) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return sys_fail("seal memory");
  return memory;
}

Result<Findings> run_probes(exec::Client& client, const DomainRef& domain, Fd program, bool are_all) {
  auto started = TRY(start(client, domain, std::move(program), are_all ? "--all" : ""));
  started.fds[1].reset();
  const std::string text = TRY(read_text(started.fds[2], false));
  const int status = TRY(wait_for_end(started.fds[0]));
  if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
    return fail(VIR_ERR_OPERATION_FAILED,
                WIFSIGNALED(status) ? "the probes were ended by signal " + std::to_string(WTERMSIG(status))
                                    : "the probes ended with status " + std::to_string(WEXITSTATUS(status)) + ": " +
                                          printable(TRY(read_text(started.fds[3], true))));
  Findings findings;
  for (const auto line : split(text, '\n'))
    if (Finding finding; read_finding(std::string(line), finding)) findings.push_back(std::move(finding));
  if (findings.empty()) return fail(VIR_ERR_OPERATION_FAILED, "the probes said nothing");
  return findings;
}

Result<Hog> Hog::start(exec::Client& client, const DomainRef& domain, Fd program) {
  auto started = TRY(drill::start(client, domain, std::move(program), "--use-up"));
  std::string said = TRY(read_text(started.fds[2], true));
  return Hog(std::move(started.fds), std::string(trim(said)));
}

}  // namespace virtuserns::drill
