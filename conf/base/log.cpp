#include "conf/base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <ctime>
#include <mutex>
#include <vector>

#include "conf/base/fd.h"
#include "conf/base/text.h"

namespace virtuserns {

namespace {

struct Filter {
  unsigned level;
  std::string match;
};
struct Output {
  unsigned level;
  Fd file;
};  // an empty file: stderr

// The one global of the program: set once by main before threads start, read under the mutex.
struct Log {
  std::mutex mutex;
  unsigned level = 3;
  std::vector<Filter> filters;
  std::vector<Output> outputs;
};

Log& the_log() {
  static Log log;
  return log;
}

unsigned least_level_locked(const Log& log, std::string_view source) {
  for (const auto& filter : log.filters)
    if (source.find(filter.match) != std::string_view::npos) return filter.level;
  return log.level;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd, text.data(), text.size());
    if (written <= 0) return;  // a full disk or a closed stderr must not stop the program
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace

bool is_logged(LogLevel level, std::string_view source) {
  Log& log = the_log();
  std::lock_guard lock(log.mutex);
  return static_cast<unsigned>(level) >= least_level_locked(log, source);
}

void log_line(LogLevel level, std::string_view source, std::string_view message) {
  static constexpr const char* kNames[] = {"", "debug", "info", "warning", "error"};
  static constexpr int kSyslog[] = {7, 7, 6, 4, 3};
  const auto number = static_cast<unsigned>(level);
  const std::string text = std::string(source) + ": " + printable(message, 4096);
  Log& log = the_log();
  std::lock_guard lock(log.mutex);
  if (number < least_level_locked(log, source)) return;
  const auto write_stderr = [&] {
    write_all(STDERR_FILENO, "<" + std::to_string(kSyslog[number]) + ">" + text + "\n");
  };
  if (log.outputs.empty()) return write_stderr();
  for (const auto& output : log.outputs) {
    if (number < output.level) continue;
    if (!output.file) {
      write_stderr();
      continue;
    }
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    ::gmtime_r(&now.tv_sec, &parts);
    char stamp[40];
    const auto length = std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &parts);
    const std::string millis = std::to_string(1000 + now.tv_nsec / 1'000'000).substr(1);
    write_all(output.file.get(), std::string(stamp, length) + "." + millis + "+0000: " + std::to_string(::getpid()) +
                                     ": " + kNames[number] + " : " + text + "\n");
  }
}

void configure_log(unsigned level, std::string_view filters, std::string_view outputs) {
  std::vector<std::string> complaints;
  {
    Log& log = the_log();
    std::lock_guard lock(log.mutex);
    log.level = level;
    log.filters.clear();
    log.outputs.clear();
    for (const auto part : split_blanks(filters)) {
      const auto fields = split(part, ':');
      const auto number = parse_number<unsigned>(fields[0]);
      if (fields.size() != 2 || !number || *number < 1 || *number > 4 || fields[1].empty())
        complaints.push_back("ignored log filter " + quote(part) + ": expected LEVEL:TEXT with LEVEL 1 to 4");
      else
        log.filters.push_back({*number, std::string(fields[1])});
    }
    for (const auto part : split_blanks(outputs)) {
      const auto fields = split(part, ':');
      const auto number = parse_number<unsigned>(fields[0]);
      if (number && fields.size() == 2 && fields[1] == "stderr") {
        log.outputs.push_back({*number, Fd()});
      } else if (number && fields.size() == 3 && fields[1] == "file") {
        const std::string path(fields[2]);
        Fd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600));
        if (file)
          log.outputs.push_back({*number, std::move(file)});
        else
          complaints.push_back("cannot open log file " + quote(path));
      } else {
        complaints.push_back("ignored log output " + quote(part) + ": expected LEVEL:stderr or LEVEL:file:PATH");
      }
    }
  }
  for (const auto& complaint : complaints) log_warning("log", complaint);
}

}  // namespace virtuserns
