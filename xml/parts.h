// The pieces of <domain>, for domain.cpp, devices.cpp, status.cpp and the converter of machines (tools/convert). Each parse_ reads one element into its
// place in the model; each make_ builds the element for printing.
#pragma once

#include "conf/base/result.h"
#include "conf/domain.h"
#include "xml/domain.h"
#include "xml/node.h"
#include "xml/writer.h"

namespace virtuserns::xml {

// The whole of <domain>, below another root (status) or as a document.
[[nodiscard]] Result<DomainDef> parse_domain_node(const Node& root, unsigned flags);
[[nodiscard]] Element make_domain(const DomainDef& def, FormatKind kind, Secrets secrets);

// on_poweroff, on_reboot, on_crash of `root`
[[nodiscard]] Result<void> parse_lifecycle(const Node& root, DomainDef& def);

// tuning.cpp
[[nodiscard]] Result<void> parse_memory(const Node& root, DomainDef& def);  // memory, currentMemory
[[nodiscard]] Result<void> parse_memtune(const Node& node, MemoryTune& tune);
[[nodiscard]] Result<void> parse_blkiotune(const Node& node, BlkioTune& tune);
[[nodiscard]] Result<void> parse_vcpu(const Node& node, VcpuDef& vcpu);
[[nodiscard]] Result<void> parse_cputune(const Node& node, CpuTune& tune);
[[nodiscard]] Result<void> parse_numatune(const Node& node, const VcpuDef& vcpu, NumaTune& tune);
void parse_resource(const Node& node, ResourceDef& resource);
[[nodiscard]] Element make_memtune(const MemoryTune& tune);
[[nodiscard]] Element make_blkiotune(const BlkioTune& tune);
[[nodiscard]] Element make_vcpu(const VcpuDef& vcpu);
[[nodiscard]] Element make_cputune(const CpuTune& tune);
[[nodiscard]] Element make_numatune(const NumaTune& tune);
[[nodiscard]] Element make_resource(const ResourceDef& resource);

// os.cpp
[[nodiscard]] Result<void> parse_os(const Node& node, OsDef& os);
[[nodiscard]] Result<void> parse_features(const Node& node, FeaturesDef& features);
[[nodiscard]] Result<void> parse_clock(const Node& node, ClockDef& clock);
[[nodiscard]] Element make_os(const OsDef& os);
[[nodiscard]] Element make_features(const FeaturesDef& features);
[[nodiscard]] Element make_clock(const ClockDef& clock);

// seclabel.cpp
[[nodiscard]] Result<SeclabelDef> parse_seclabel(const Node& node, unsigned flags);
[[nodiscard]] Result<std::vector<SharedNamespace>> parse_shared_namespaces(const Node& node);
[[nodiscard]] Element make_seclabel(const SeclabelDef& label);
[[nodiscard]] Element make_shared_namespaces(const std::vector<SharedNamespace>& list);

// value in bytes, unit from the attribute (virScaleInteger): "KiB", "MB", "bytes" ...; `scale` when there is none.
[[nodiscard]] Result<std::uint64_t> parse_scaled(const Node& node, std::string_view digits, std::string_view unit,
                                                 std::uint64_t scale);
[[nodiscard]] Result<std::uint64_t> parse_kib(const Node& node);  // text and unit='', rounded up

// A word out of a table, or an error that lists the words.
template <class Enum>
struct Word {
  std::string_view word;
  Enum value;
};
template <class Enum, std::size_t size>
[[nodiscard]] Result<Enum> parse_word(const Node& node, std::string_view what, std::string_view text,
                                      const Word<Enum> (&words)[size], int code = VIR_ERR_XML_ERROR) {
  std::string known;
  for (const auto& w : words) {
    if (w.word == text) return w.value;
    known += (known.empty() ? "" : ", ") + std::string(w.word);
  }
  return node.error(code, "unknown " + std::string(what) + " " + quote(text) + ": known are " + known);
}
template <class Enum, std::size_t size>
[[nodiscard]] std::string_view word_of(Enum value, const Word<Enum> (&words)[size]) {
  for (const auto& w : words)
    if (w.value == value) return w.word;
  return words[0].word;
}
// As parse_word for members that hold the word itself.
[[nodiscard]] Result<std::string> parse_choice(const Node& node, std::string_view what, std::string text,
                                               std::initializer_list<std::string_view> words,
                                               int code = VIR_ERR_XML_ERROR);

}  // namespace virtuserns::xml
