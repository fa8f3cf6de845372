// JobState as JSON. What is read was written by us, and is checked all the same: it says what is removed.
#include <nlohmann/json.hpp>

#include "conf/base/text.h"
#include "tools/convert/job.h"

namespace virtuserns::convert {
namespace {

using nlohmann::json;

constexpr const char* kModes[] = {"in-place", "tree", "image"};
constexpr const char* kPhases[] = {"converting", "converted", "committing", "committed", "rolling-back"};
constexpr int kVersion = 1;

std::string text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

template <class T>
T number_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<T>() : T{};
}

std::vector<json> list_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_array() ? std::vector<json>(found->begin(), found->end())
                                                    : std::vector<json>();
}

// The place of a word in its table, or nothing.
template <std::size_t N>
std::optional<std::size_t> find_word(const char* const (&words)[N], const std::string& word) {
  for (std::size_t i = 0; i < N; ++i)
    if (word == words[i]) return i;
  return std::nullopt;
}

json encode(const Image& image) {
  return {{"path", image.path},   {"format", image.format},       {"inode", image.inode},
          {"bytes", image.bytes}, {"changed_s", image.changed_s}, {"changed_ns", image.changed_ns}};
}

Image decode_image(const json& object) {
  return {text_of(object, "path"),
          text_of(object, "format"),
          number_of<std::uint64_t>(object, "inode"),
          number_of<std::uint64_t>(object, "bytes"),
          number_of<std::int64_t>(object, "changed_s"),
          number_of<std::int64_t>(object, "changed_ns")};
}

json encode(const Placed& place) {
  const auto& volume = place.volume;
  return {{"target", place.target},
          {"subvolume", place.subvolume},
          {"disk", volume.disk},
          {"offset", volume.offset},
          {"size", volume.size},
          {"type", volume.type},
          {"uuid", volume.uuid},
          {"label", printable(volume.label)},
          {"name", printable(volume.name)},
          {"part_uuid", volume.part_uuid},
          {"part_label", volume.part_label},
          {"partition", volume.partition}};
}

Placed decode_place(const json& object) {
  Placed place;
  place.target = text_of(object, "target");
  place.subvolume = text_of(object, "subvolume");
  auto& volume = place.volume;
  volume.disk = text_of(object, "disk");
  volume.offset = number_of<std::uint64_t>(object, "offset");
  volume.size = number_of<std::uint64_t>(object, "size");
  volume.type = text_of(object, "type");
  volume.uuid = text_of(object, "uuid");
  volume.label = text_of(object, "label");
  volume.name = text_of(object, "name");
  volume.part_uuid = text_of(object, "part_uuid");
  volume.part_label = text_of(object, "part_label");
  volume.partition = number_of<std::uint32_t>(object, "partition");
  return place;
}

json encode(const LiveMachine& live) {
  json disks = json::array();
  for (const auto& disk : live.disks)
    disks.push_back({{"target", disk.target}, {"overlay", disk.overlay}, {"is_merging", disk.is_merging}});
  return {{"uri", live.uri},
          {"uuid", live.uuid},
          {"name", live.name},
          {"disks", disks},
          {"is_stopped", live.is_stopped},
          {"limit_s", live.limit_s}};
}

// Nothing where it is none: what it says is what libvirt is asked to do with a machine.
std::optional<LiveMachine> decode_live(const json& object) {
  LiveMachine live{text_of(object, "uri"),
                   text_of(object, "uuid"),
                   text_of(object, "name"),
                   {},
                   false,
                   number_of<std::uint32_t>(object, "limit_s")};
  const auto stopped = object.find("is_stopped");
  if (live.uuid.empty() || stopped == object.end() || !stopped->is_boolean()) return std::nullopt;
  live.is_stopped = stopped->get<bool>();
  for (const auto& disk : list_of(object, "disks")) {
    live.disks.push_back({text_of(disk, "target"), text_of(disk, "overlay"), disk.value("is_merging", false)});
    if (live.disks.back().target.empty() || !live.disks.back().overlay.starts_with('/')) return std::nullopt;
  }
  return live;
}

}  // namespace

const char* word_of(Mode mode) { return kModes[static_cast<std::size_t>(mode)]; }
const char* word_of(Phase phase) { return kPhases[static_cast<std::size_t>(phase)]; }

std::string format_state(const JobState& state) {
  json disks = json::array(), places = json::array();
  for (const auto& disk : state.disks) {
    json chain = json::array();
    for (const auto& image : disk.chain) chain.push_back(encode(image));
    disks.push_back({{"target", disk.target}, {"chain", chain}});
  }
  for (const auto& place : state.places) places.push_back(encode(place));
  json object{{"version", kVersion}, {"phase", word_of(state.phase)},    {"mode", word_of(state.mode)},
              {"uri", state.uri},    {"domain_uuid", state.domain_uuid}, {"disks", disks},
              {"places", places},    {"source_xml", state.source_xml}};
  if (state.live) object["live"] = encode(*state.live);
  if (!state.backs.empty()) object["backs"] = state.backs;
  // Bytes that are no UTF-8 (names of a guest) do not come back: nothing is found by them again.
  return object.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<JobState> parse_state(std::string_view text) {
  const auto object = json::parse(text.begin(), text.end(), nullptr, false);
  if (!object.is_object()) return fail(VIR_ERR_OPERATION_FAILED, "it is no JSON object");
  if (number_of<int>(object, "version") != kVersion)
    return fail(VIR_ERR_OPERATION_FAILED, "it is of another version of this program");
  const auto mode = find_word(kModes, text_of(object, "mode")), phase = find_word(kPhases, text_of(object, "phase"));
  if (!mode || !phase) return fail(VIR_ERR_OPERATION_FAILED, "it has no mode or phase that is known");
  JobState state;
  state.mode = static_cast<Mode>(*mode);
  state.phase = static_cast<Phase>(*phase);
  state.uri = text_of(object, "uri");
  state.domain_uuid = text_of(object, "domain_uuid");
  state.source_xml = text_of(object, "source_xml");
  for (const auto& disk : list_of(object, "disks")) {
    JobDisk decoded{text_of(disk, "target"), {}};
    for (const auto& image : list_of(disk, "chain")) decoded.chain.push_back(decode_image(image));
    if (decoded.target.empty() || decoded.chain.empty())
      return fail(VIR_ERR_OPERATION_FAILED, "a disk without a name");
    state.disks.push_back(std::move(decoded));
  }
  for (const auto& back : list_of(object, "backs"))
    if (back.is_string()) state.backs.push_back(back.get<std::string>());
  for (const auto& place : list_of(object, "places")) state.places.push_back(decode_place(place));
  if (const auto live = object.find("live"); live != object.end()) {
    state.live = live->is_object() ? decode_live(*live) : std::nullopt;
    if (!state.live) return fail(VIR_ERR_OPERATION_FAILED, "what it says of the machine that ran is none");
  }
  return state;
}

}  // namespace virtuserns::convert
