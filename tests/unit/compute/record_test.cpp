#include "driver/compute/record.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <regex>

#include "conf/base/file.h"
#include "driver/compute/host.h"
#include "driver/compute/kinds.h"
#include "driver/compute/settings.h"
#include "tests/unit/compute/sample.h"

namespace virtuserns::compute {
namespace {

Record sample() {
  Record record;
  const auto instance = test::sample_instance(), vif = test::sample_vif(), volume = test::sample_volume();
  record.spec = read_instance(Object::of(instance, "i").value()).value();
  record.image = ImageRef{"key", "raw"};
  record.network = {read_vif(Object::of(vif, "v").value()).value()};
  record.volumes = {read_volume(Object::of(volume, "v").value()).value()};
  return record;
}

TEST(Record, ComesBackAsItWas) {
  auto record = sample();
  EXPECT_EQ(parse_record(format_record(record)).value(), record);
  for (const auto phase : {Phase::kCreating, Phase::kReady, Phase::kMoved}) {
    record.phase = phase;
    EXPECT_EQ(parse_record(format_record(record)).value(), record);
  }
  record.image.reset();
  record.rescue = ImageRef{"other", "qcow2"};
  record.before_resize = record.spec;
  record.before_resize->flavor.root_gb = 1;
  record.has_config_drive = record.is_suspended = record.is_paused_here = record.is_frozen = true;
  record.token = std::string(64, 'f');
  record.spec.ids.reset();
  record.volumes[0].is_root = record.volumes[0].is_readonly = true;
  record.arriving = record.volumes[0];
  record.arriving->is_root = false;
  record.arriving->is_shared = true;
  EXPECT_EQ(parse_record(format_record(record)).value(), record);
}

TEST(Record, EveryCutIsRefused) {
  const auto text = format_record(sample());
  // Without the last newline it is whole.
  for (std::size_t size = 0; size + 2 < text.size(); ++size) EXPECT_FALSE(parse_record(text.substr(0, size))) << size;
}

TEST(Record, EveryMemberIsNeededOrBounded) {
  const auto good = Json::parse(format_record(sample()));
  for (const char* key : {"version", "phase", "instance", "config_drive", "suspended"}) {
    auto json = good;
    json.erase(key);
    EXPECT_FALSE(parse_record(json.dump())) << key;
  }
  const std::pair<const char*, Json> wrong[] = {{"version", 2},
                                                {"phase", "x"},
                                                {"phase", 1},
                                                {"instance", 1},
                                                {"network", 1},
                                                {"volumes", {1}},
                                                {"config_drive", 1},
                                                {"suspended", "x"},
                                                {"token", 1},
                                                {"token", std::string(129, 'x')},
                                                {"image", Json::object()},
                                                {"rescue", 1},
                                                {"arriving", 1},
                                                {"arriving", Json::object()},
                                                {"before_resize", 1}};
  for (const auto& [key, value] : wrong) {
    auto json = good;
    json[key] = value;
    EXPECT_FALSE(parse_record(json.dump())) << key << value;
  }
}

TEST(Kinds, EveryCodeIsOneAndOnlyWaitingHelpsThose) {
  const std::pair<int, std::string_view> known[] = {{VIR_ERR_NO_DOMAIN, "instance-not-found"},
                                                    {VIR_ERR_DOM_EXIST, "instance-exists"},
                                                    {VIR_ERR_OPERATION_INVALID, "invalid-state"},
                                                    {VIR_ERR_NO_SUPPORT, "unsupported"},
                                                    {VIR_ERR_OPERATION_UNSUPPORTED, "unsupported"},
                                                    {VIR_ERR_CONFIG_UNSUPPORTED, "unsupported"},
                                                    {VIR_ERR_INVALID_ARG, "invalid"},
                                                    {VIR_ERR_XML_ERROR, "invalid"},
                                                    {kImageMissing, "image-missing"},
                                                    {kImageRefused, "image-refused"},
                                                    {kImageTooLarge, "image-too-large"},
                                                    {VIR_ERR_NO_MEMORY, "no-space"},
                                                    {VIR_ERR_DEVICE_MISSING, "device-not-found"},
                                                    {VIR_ERR_RESOURCE_BUSY, "busy"},
                                                    {kUnavailable, "unavailable"},
                                                    {VIR_ERR_NO_CONNECT, "unavailable"},
                                                    {VIR_ERR_OPERATION_TIMEOUT, "unavailable"},
                                                    {VIR_ERR_INTERNAL_ERROR, "internal"},
                                                    {VIR_ERR_OPERATION_FAILED, "internal"}};
  for (const auto& [code, name] : known) {
    const auto kind = kind_of(Error{code, 0, "x"});
    EXPECT_EQ(kind.name, name) << code;
    EXPECT_EQ(kind.is_retryable, name == "busy" || name == "unavailable") << code;
  }
  for (const int why : {ENOSPC, EDQUOT}) EXPECT_EQ(kind_of(Error{VIR_ERR_INTERNAL_ERROR, why, "x"}).name, "no-space");
}

TEST(Settings, EveryKeyIsOptionalAndChecked) {
  EXPECT_EQ(parse_settings("", "f").value().socket, "/run/virtuserns/compute.sock");
  const auto read =
      parse_settings(
          "connect = \"test:///default\"\nlog_level = 1\ndefault_disk_gb = 5 # gigabytes\nroot_volumes = true\n", "f")
          .value();
  EXPECT_EQ(read.connect, "test:///default");
  EXPECT_EQ(read.log_level, 1u);
  EXPECT_EQ(read.default_disk_gb, 5u);
  EXPECT_TRUE(read.root_volumes);
  EXPECT_FALSE(parse_settings("", "f").value().root_volumes);
  const std::pair<const char*, const char*> wrong[] = {
      {"\n\nno_such = 1", "f:3: unknown key 'no_such'"},
      {"socket = \"relative\"", "f:1: key 'socket' needs an absolute path"},
      {"state = 1", "f:1: key 'state' needs an absolute path"},
      {"image_program = \"relative\"", "f:1: key 'image_program' needs an absolute path, or \"\""},
      {"root_volumes = 1", "f:1: key 'root_volumes' needs true or false"},
      {"connect = 1", "f:1: key 'connect' needs a string"},
      {"log_level = 5", "f:1: key 'log_level' needs a number from 1 to 4"},
      {"log_level = \"3\"", "f:1: key 'log_level' needs a number from 1 to 4"},
      {"image_limit_gb = 1.5", "f:1: key 'image_limit_gb' needs a number from 0 to 1048576"},
      {"image_reserve_percent = 91", "f:1: key 'image_reserve_percent' needs a number from 0 to 90"},
      {"patience_s = -1", "f:1: key 'patience_s' needs a number from 0 to 3600"}};
  for (const auto& [text, error] : wrong) EXPECT_EQ(parse_settings(text, "f").error().text, error);
  for (const char* text :
       {"socket", "socket =", "socket = \"", "[table]", "socket = \"/a\"\nsocket = \"/b\"", "\xff = 1"})
    EXPECT_FALSE(parse_settings(text, "f")) << text;
  EXPECT_TRUE(read_settings_file("/nonexistent/file"));
}

// "What is commented out here is the default."
TEST(Settings, EveryLineOfTheExampleCanBeUncommented) {
  const auto* source = std::getenv("VIRTUSERNS_SOURCE");
  ASSERT_TRUE(source);
  const auto example = read_file(std::string(source) + "/tools/data/virtuserns-compute.conf").value();
  const auto uncommented = std::regex_replace(example, std::regex("(^|\n)#([a-z_]+ = )"), "$1$2");
  ASSERT_NE(uncommented, example);
  const auto read = parse_settings(uncommented, "f");
  ASSERT_TRUE(read) << read.error().text;
  EXPECT_TRUE(*read == Settings{});
}

TEST(CpuTraits, AreThoseOfPlacement) {
  const auto traits =
      cpu_traits("processor\t: 0\nflags\t\t: fpu sse4_2 pni avx2 made_up vmx\n\nprocessor : 1\nflags : avx512f\n");
  EXPECT_EQ(traits,
            (std::vector<std::string>{"HW_CPU_X86_AVX2", "HW_CPU_X86_SSE3", "HW_CPU_X86_SSE42", "HW_CPU_X86_VMX"}));
  EXPECT_TRUE(cpu_traits("").empty());
  EXPECT_TRUE(cpu_traits("flags").empty());
}

}  // namespace
}  // namespace virtuserns::compute
