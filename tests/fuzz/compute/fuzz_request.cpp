// A request as a client sends it: the JSON, the structures of it, and what the adapter answers when its hypervisor is nowhere. Methods that
// make something are read to their parameters only: what they do to a host is not for here.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "conf/base/log.h"
#include "driver/compute/domain_xml.h"
#include "driver/compute/machine_xml.h"
#include "driver/compute/methods.h"
#include "tests/support/temp_dir.h"
#include "xml/domain.h"
#include "xml/node.h"

using namespace virtuserns;
using namespace virtuserns::compute;

namespace {

// libFuzzer ends a run that found something, or was interrupted, without destructors: a child that outlives it removes the folder.
class Folder {
 public:
  Folder() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    if (::fork() != 0) {
      ::close(ends[0]);
      return;  // the other end is open as long as this process is
    }
    ::setsid();                                              // not interrupted with it
    for (const int standard : {0, 1, 2}) ::close(standard);  // whoever reads its output waits for nothing else
    ::close(ends[1]);
    char none = 0;
    (void)!::read(ends[0], &none, 1);
    std::error_code ignored;
    std::filesystem::remove_all(folder_.path(), ignored);
    ::_exit(0);
  }
  [[nodiscard]] const std::string& path() const { return folder_.path(); }

 private:
  virtuserns::test::TempDir folder_;
};

// An adapter that knows no instance and no image, and whose daemon is nowhere.
struct Adapter {
  Adapter()
      : images(Bases::open(store()).value()),
        hypervisor(uri(), std::chrono::milliseconds(0), [](const DomainEvent&) {}) {
    settings.state = folder.path() + "/state";
    guests = make_guests(settings, images, hypervisor).value();
    compute.emplace(settings, hypervisor, *guests, images);
    if (!compute->load()) std::abort();
    host.emplace(*compute);
  }
  [[nodiscard]] StoreOptions store() const {
    StoreOptions options;
    options.folder = folder.path() + "/images";
    options.program = "/bin/false";
    return options;
  }
  [[nodiscard]] std::string uri() const { return "userns+unix:///system?socket=" + folder.path() + "/none"; }

  Folder folder;
  Settings settings;
  Bases images;
  Hypervisor hypervisor;
  std::unique_ptr<Guests> guests;
  std::optional<Compute> compute;
  std::optional<Host> host;
};

// What the structures are read from, whichever method asks for them.
void read_structures(const Object& params) {
  Record record;
  if (params.has("instance"))
    if (const auto object = params.object("instance"))
      if (auto spec = read_instance(*object)) record.spec = *std::move(spec);
  if (auto image = read_image(params)) record.image = *std::move(image);
  if (auto network = read_network(params)) record.network = *std::move(network);
  if (auto volumes = read_volumes(params)) record.volumes = *std::move(volumes);
  (void)read_files(params, "files");
  (void)read_files(params, "config_drive");
  if (record.spec.uuid.empty()) return;
  // Whatever was taken comes back from the journal as it was, and is a domain that can be read, of one root.
  const auto again = parse_record(format_record(record));
  if (!again || !(*again == record)) std::abort();
  Places places;
  places.console_log = "/log";
  if (record.image) places.base = "/base", places.root = "/root";
  const auto machine =
      make_machine_xml(record, {"x86_64", "kvm", "hvm"}, {"/disk", "/base", "", "", "/drive", "/log"});
  if (machine && !xml::Document::parse(*machine)) std::abort();
  const auto printed = make_domain_xml(record, places);
  if (!printed) return;
  const auto def = xml::parse_domain(*printed);
  if (def && (def->interfaces.size() != record.network.size() || def->consoles.size() != 1)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  configure_log(4, "", "");
  static Adapter adapter;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_json(text);
  if (parsed && parsed->is_object() && parsed->contains("params"))
    if (const auto params = Object::of((*parsed)["params"], "params")) read_structures(*params);
  // A path is a file of the machine that this runs on.
  if (parsed && parsed->is_object() && parsed->value("params", Json()).is_object() &&
      (*parsed)["params"].contains("path"))
    return 0;
  const auto said = answer({*adapter.compute, *adapter.host}, {65534}, text);
  const auto response = parse_json(said.text);
  if (!response || !response->is_object() || response->contains("result") == response->contains("error"))
    std::abort();
  if ((*response)["jsonrpc"] != "2.0" || !response->contains("id")) std::abort();
  return 0;
}
