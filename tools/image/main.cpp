// virt-userns-image: images of a cloud become directories of files, and back. docs/manual/virt-userns-image.1 is what a person
// reads of it.
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "conf/base/text.h"
#include "driver/exec/program.h"
#include "tools/image/detect.h"
#include "tools/image/pack.h"
#include "tools/image/place.h"
#include "tools/image/unpack.h"
#include "virtuserns_build.h"

namespace virtuserns::image {
namespace {

constexpr int kError = 1, kMisused = 2, kLarge = 3, kFull = 4;
constexpr unsigned kMostReserve = 90;
constexpr std::size_t kMaxFindings = 200, kMaxLowers = 64;
constexpr const char* kUsage =
    "usage: virt-userns-image unpack [OPTION...] SOURCE DIRECTORY\n"
    "       virt-userns-image pack [OPTION...] TREE OUTPUT\n"
    "       virt-userns-image remove DIRECTORY\n"
    "       virt-userns-image clean FOLDER\n"
    "unpack: DIRECTORY, which is new, gets the files of the image SOURCE\n"
    "  -f, --format FORMAT  raw, qcow2, vmdk, vdi, vhd, vhdx, root-tar (by its first bytes)\n"
    "      --root VOLUME    which volume is '/' (vda2, vg/root)\n"
    "      --limit BYTES[K|M|G|T]  that the files may have (what there is room for)\n"
    "      --entries N      files and directories that there may be (4000000)\n"
    "      --reserve PERCENT  of the file system that are left free (5)\n"
    "      --fit            change services and settings of a machine for a container\n"
    "      --whole          a disk stays one: DIRECTORY gets it as the raw file 'disk'\n"
    "pack: OUTPUT, which is new, or '-', becomes an image of the files of TREE\n"
    "      --lower DIR      TREE was written over this one by an overlay; may be repeated, the uppermost first\n"
    "  -f, --format FORMAT  root-tar, or raw: a file system, ext4 (root-tar)\n"
    "remove: DIRECTORY and all that is in it\n"
    "clean: what commands that were killed have left in FOLDER\n"
    "  -j, --json           say what was done as a document for scripts\n"
    "  -q, --quiet          no progress\n"
    "  -h, --help, --version\n"
    "exit status: 0 done, 1 an error, 2 misused, 3 the image is larger than it may be, 4 there is no room for it\n";

enum LongOnly { kRoot = 256, kLimit, kEntries, kReserve, kFit, kWhole, kLower };
constexpr option kLong[] = {{"format", required_argument, nullptr, 'f'},
                            {"root", required_argument, nullptr, kRoot},
                            {"limit", required_argument, nullptr, kLimit},
                            {"entries", required_argument, nullptr, kEntries},
                            {"reserve", required_argument, nullptr, kReserve},
                            {"fit", no_argument, nullptr, kFit},
                            {"whole", no_argument, nullptr, kWhole},
                            {"lower", required_argument, nullptr, kLower},
                            {"json", no_argument, nullptr, 'j'},
                            {"quiet", no_argument, nullptr, 'q'},
                            {"help", no_argument, nullptr, 'h'},
                            {"version", no_argument, nullptr, 'V'},
                            {nullptr, 0, nullptr, 0}};

struct Options {
  UnpackOptions unpack;
  PackOptions pack;
  std::vector<int> given;
  bool is_json = false, is_quiet = false, is_help = false, is_version = false;
};

Error wrong(const std::string& text) { return fail(VIR_ERR_INVALID_ARG, text + "; see 'virt-userns-image --help'"); }

Result<std::uint64_t> parse_bytes(const std::string& text) {
  constexpr std::string_view kUnits = "KMGT";
  auto digits = std::string_view(text);
  std::size_t unit = 0;
  if (!digits.empty() && kUnits.find(digits.back()) != std::string_view::npos) {
    unit = kUnits.find(digits.back()) + 1;
    digits.remove_suffix(1);
  }
  const auto number = parse_number<std::uint64_t>(digits);
  if (!number || *number == 0 || *number > (std::uint64_t{1} << 60) >> (10 * unit))
    return wrong(quote(text) + " is no size");
  return *number << (10 * unit);
}

Result<void> take_option(Options& options, int option, std::string value) {
  options.given.push_back(option);
  auto& unpack = options.unpack;
  switch (option) {
    case 'f':
      unpack.format = value;
      return {};
    case kLower:
      options.pack.lowers.push_back(value);
      return {};
    case 'j':
      options.is_json = true;
      return {};
    case 'q':
      options.is_quiet = true;
      return {};
    case kRoot:
      unpack.root = value;
      return {};
    case kLimit:
      unpack.limits.bytes.most = TRY(parse_bytes(value));
      return {};
    case kEntries: {
      const auto number = parse_number<std::uint64_t>(value);
      if (!number || *number == 0 || *number > 1'000'000'000) return wrong(quote(value) + " is no number of entries");
      unpack.limits.entries.most = *number;
      return {};
    }
    case kReserve: {
      const auto number = parse_number<unsigned>(value);
      if (!number || *number > kMostReserve)
        return wrong(quote(value) + " is no share: name 0 to " + std::to_string(kMostReserve) + " percent");
      unpack.reserve_percent = *number;
      return {};
    }
    case kWhole:
      unpack.is_whole = true;
      return {};
    default:
      unpack.is_fitted = true;
      return {};
  }
}

// What means nothing to a command is refused: it would be taken as obeyed.
bool is_option_of(std::string_view command, int option) {
  switch (option) {
    case 'j':
    case 'q':
      return true;
    case 'f':
      return command == "unpack" || command == "pack";
    case kLower:
      return command == "pack";
    default:
      return command == "unpack";
  }
}

Result<void> check_options(const std::string& command, const Options& options) {
  for (const int given : options.given)
    if (!is_option_of(command, given))
      for (const auto& name : kLong)
        if (name.val == given) return wrong(quote(command) + " has no use for --" + name.name);
  const auto& format = options.unpack.format;
  if (options.unpack.is_whole && (options.unpack.is_fitted || !options.unpack.root.empty()))
    return wrong("--whole looks for no files, so --fit and --root mean nothing to it");
  if (command == "pack" && !format.empty() && format != kRootTar && format != "raw")
    return wrong("'pack' makes root-tar and raw");
  if (options.pack.lowers.size() > kMaxLowers) return wrong("--lower is there too often");
  return {};
}

std::string text_of(const Report& report) {
  std::string text = std::to_string(report.entries) + " entries, " + std::to_string(report.bytes) + " bytes of " +
                     report.format + (report.root.empty() ? "" : ", root " + quote(report.root)) + "\n";
  for (const auto& finding : report.findings)
    text += std::string(convert::word_of(finding.severity)) + ": " + printable(finding.object) + ": " +
            printable(finding.text, 1024) + "\n";
  return text;
}

std::string json_of(const std::string& directory, const Report& report) {
  auto findings = nlohmann::ordered_json::array();
  for (const auto& finding : report.findings) {
    if (findings.size() == kMaxFindings) break;
    findings.push_back({{"severity", convert::word_of(finding.severity)},
                        {"object", printable(finding.object)},
                        {"text", printable(finding.text, 1024)},
                        {"rule", finding.rule}});
  }
  nlohmann::ordered_json document{
      {"path", printable(directory, 4096)}, {"format", report.format}, {"root", printable(report.root)},
      {"entries", report.entries},          {"bytes", report.bytes},   {"findings", std::move(findings)}};
  return document.dump(2) + "\n";
}

Result<int> show(const Options& options, const std::string& path, const Report& report) {
  const auto text = options.is_json ? json_of(path, report) : text_of(report);
  if (path != "-") return exec::say(text.c_str());
  if (!options.is_quiet) std::fputs(text.c_str(), stderr);  // the standard output is the image
  return 0;
}

Result<int> carry_out(const std::string& command, const std::vector<std::string>& words, Options& options) {
  const auto takes = [&](std::size_t count) -> Result<void> {
    if (words.size() == count) return {};
    return wrong(quote(command) + " takes " + (count == 1 ? "one path" : "two paths"));
  };
  if (command == "unpack") {
    TRY(takes(2));
    return show(options, words[1], TRY(unpack(words[0], words[1], options.unpack)));
  }
  if (command == "pack") {
    TRY(takes(2));
    options.pack.is_raw = options.unpack.format == "raw";
    if (options.pack.is_raw && words[1] == "-") return wrong("a raw image is written to a file");
    return show(options, words[1], TRY(pack(words[0], words[1], options.pack)));
  }
  if (command != "remove" && command != "clean") return wrong(quote(command) + " is no command");
  TRY(takes(1));
  TRY(command == "remove" ? remove(words[0]) : clean(words[0]));
  return 0;
}

Result<int> run(int argc, char** argv) {
  Options options;
  TRY(exec::read_options(argc, argv, "f:jqh", kLong, options, take_option));
  if (options.is_help || options.is_version)
    return exec::say(options.is_help ? kUsage : "virt-userns-image " VIRTUSERNS_VERSION "\n");
  std::vector<std::string> words(argv + optind, argv + argc);
  if (words.empty()) return wrong("name a command");
  const auto command = words.front();
  words.erase(words.begin());
  TRY(check_options(command, options));
  if (::geteuid() != 0)
    return fail(VIR_ERR_OPERATION_DENIED, "only root mounts images and gives files to others: run it as root");
  ::signal(SIGPIPE, SIG_IGN);
  if (!options.is_quiet)
    options.pack.say = options.unpack.say = [](const std::string& text) {
      std::fprintf(stderr, "%s\n", printable(text, 1024).c_str());
    };
  return carry_out(command, words, options);
}

}  // namespace
}  // namespace virtuserns::image

int main(int argc, char** argv) {
  using namespace virtuserns;
  return exec::run_program("virt-userns-image", argc, argv, image::run, [](const Error& error) {
    if (error.sys_errno == ENOSPC || error.sys_errno == EDQUOT) return image::kFull;
    if (error.code == image::kTooLarge) return image::kLarge;
    return error.code == VIR_ERR_INVALID_ARG ? image::kMisused : image::kError;
  });
}
