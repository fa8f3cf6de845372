#include "tools/convert/nics.h"

#include <algorithm>
#include <set>

#include "conf/base/text.h"
#include "conf/defaults.h"
#include "conf/domain_devices.h"
#include "tools/convert/cards.h"

namespace virtuserns::convert {

namespace {

// net.ifnames=0 on the kernel's command line, as far as boot loaders keep it in files; or no default policy of udev's for
// names, by which it renames.
bool has_kernel_names(const GuestFiles& files) {
  for (const auto* path :
       {"/etc/default/grub", "/etc/kernel/cmdline", "/boot/extlinux.conf", "/etc/update-extlinux.conf"})
    if (files.read_or_empty(path).find("net.ifnames=0") != std::string::npos) return true;
  return !files.exists("/usr/lib/systemd/network/99-default.link") &&
         !files.exists("/lib/systemd/network/99-default.link");
}

// What systemd calls a card at this place: systemd.net-naming-scheme(7), slot before path.
std::vector<std::string> names_of(const NicSource& source, std::size_t index) {
  std::vector<std::string> names;
  if (source.pci) {
    const auto& pci = *source.pci;
    std::string tail = "s" + std::to_string(pci.slot);
    if (pci.function > 0 || pci.is_multifunction) tail += "f" + std::to_string(pci.function);
    const std::string domain = pci.domain > 0 ? "P" + std::to_string(pci.domain) : "";
    const auto path = "en" + domain + "p" + std::to_string(pci.bus) + tail, slot = "en" + domain + tail;
    // pcie-root-ports of q35 have no slot that firmware names; cards on the root bus (i440fx) have.
    names = pci.bus == 0 ? std::vector{slot, path} : std::vector{path, slot};
  }
  names.push_back("eth" + std::to_string(index));
  return names;
}

class Namer {
 public:
  Namer(const GuestFiles& files, const std::vector<NicSource>& sources)
      : sources_(sources),
        cards_(find_cards(files)),
        has_kernel_names_(has_kernel_names(files)),
        names_(sources.size()) {}

  std::vector<GuestNic> run(std::vector<Finding>& findings) {
    by_mac();
    by_place();
    by_being_alone();
    std::vector<GuestNic> nics;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (names_[i].empty()) {
        names_[i] = guess(i);
        taken_.insert(names_[i]);
        findings.push_back(
            {Severity::kNote, "card " + format_mac(sources_[i].mac),
             "is called " + quote(names_[i]) + ", which is a guess: no configuration of the guest names it", ""});
      }
      nics.push_back({sources_[i].mac, names_[i], {}});
    }
    return nics;
  }

 private:
  bool take(std::size_t i, const std::string& name) {
    if (!is_link_name(name) || !taken_.insert(name).second) return false;
    names_[i] = name;
    return true;
  }

  [[nodiscard]] bool is_configured(const std::string& name) const {
    return std::any_of(cards_.begin(), cards_.end(), [&](const Card& card) { return card.name == name; });
  }

  void by_mac() {
    for (std::size_t i = 0; i < sources_.size(); ++i)
      for (const auto& card : cards_)
        if (names_[i].empty() && card.mac == sources_[i].mac && !card.name.empty()) take(i, card.name);
  }

  void by_place() {
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      auto candidates = names_of(sources_[i], i);
      if (has_kernel_names_) std::reverse(candidates.begin(), candidates.end());
      for (const auto& name : candidates)
        if (names_[i].empty() && is_configured(name)) take(i, name);
    }
  }

  // One card without a name, and one name without a card: they belong together.
  void by_being_alone() {
    std::set<std::string> free;
    for (const auto& card : cards_) {
      const bool is_of_hardware = card.name.starts_with("en") || card.name.starts_with("eth");
      if (is_of_hardware && card.name.find('.') == std::string::npos && !taken_.contains(card.name))
        free.insert(card.name);
    }
    std::vector<std::size_t> nameless;
    for (std::size_t i = 0; i < sources_.size(); ++i)
      if (names_[i].empty()) nameless.push_back(i);
    if (nameless.size() == 1 && free.size() == 1) take(nameless[0], *free.begin());
  }

  [[nodiscard]] std::string guess(std::size_t i) const {
    auto candidates = names_of(sources_[i], i);
    if (has_kernel_names_) std::reverse(candidates.begin(), candidates.end());
    for (const auto& name : candidates)
      if (is_link_name(name) && !taken_.contains(name)) return name;
    for (std::size_t n = 0;; ++n)
      if (const auto name = "eth" + std::to_string(n); !taken_.contains(name)) return name;
  }

  const std::vector<NicSource>& sources_;
  std::vector<Card> cards_;
  bool has_kernel_names_;
  std::vector<std::string> names_;
  std::set<std::string> taken_;
};

}  // namespace

std::vector<GuestNic> name_nics(const GuestFiles& files, const std::vector<NicSource>& sources,
                                std::vector<Finding>& findings) {
  return Namer(files, sources).run(findings);
}

void give_new_macs(std::vector<GuestNic>& nics) {
  for (auto& nic : nics) {
    DeviceDef device = InterfaceDef{};
    apply_device_defaults(device, {});
    nic.former_mac = nic.mac;
    nic.mac = std::get<InterfaceDef>(device).mac.value_or(MacAddress{});
  }
}

}  // namespace virtuserns::convert
