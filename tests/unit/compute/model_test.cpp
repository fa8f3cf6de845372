#include "driver/compute/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/compute/kinds.h"
#include "tests/unit/compute/sample.h"

namespace virtuserns::compute {
namespace {

using testing::StartsWith;

Object object_of(const Json& json, const char* path) { return Object::of(json, path).value(); }
// As it would come in: a number of C++ that is not negative is none that has a sign.
Json sent(const Json& json) { return Json::parse(json.dump()); }

// One member of a good structure changed: where it is (a JSON pointer), and to what.
struct Change {
  const char* at;
  Json to;
};

template <class Read>
void each_is_refused(const Json& good, const char* path, const std::vector<Change>& changes, const Read& read) {
  for (const auto& [at, to] : changes) {
    auto json = good;
    json[Json::json_pointer(at)] = to;
    json = sent(json);
    const auto result = read(object_of(json, path));
    ASSERT_FALSE(result) << at << " = " << to.dump();
    // ".flavor.vcpus" of "/flavor/vcpus", as far as the structures go.
    const auto first = std::string(at).substr(1, std::string(at).find('/', 1) - 1);
    EXPECT_THAT(result.error().text, StartsWith(std::string(path) + "." + first)) << to.dump();
    EXPECT_EQ(kind_of(result.error()).name, "invalid");
  }
}

template <class Read>
void each_is_taken(const Json& good, const char* path, const std::vector<Change>& changes, const Read& read) {
  for (const auto& [at, to] : changes) {
    auto json = good;
    json[Json::json_pointer(at)] = to;
    json = sent(json);
    const auto result = read(object_of(json, path));
    EXPECT_TRUE(result) << at << " = " << to.dump() << ": " << result.error().text;
  }
}

TEST(Model, AnInstanceAsTheDocumentHasIt) {
  const auto json = test::sample_instance();
  const auto spec = read_instance(object_of(json, "params.instance")).value();
  EXPECT_EQ(spec.uuid, test::kUuid);
  EXPECT_EQ(spec.name, "instance-00000001");
  EXPECT_EQ(spec.flavor.vcpus, 2u);
  EXPECT_EQ(spec.flavor.extra_specs.at("quota:cpu_shares"), "512");
  EXPECT_EQ(spec.ids, (IdRange{1000000, 65536}));
  const auto again = to_json(spec);
  EXPECT_EQ(read_instance(object_of(again, "again")).value(), spec);
}

TEST(Model, MembersThatAreNotKnownAreIgnored) {
  auto json = test::sample_instance();
  json["newer"] = {1, 2};
  json["flavor"]["newer"] = "x";
  EXPECT_TRUE(read_instance(object_of(json, "i")));
}

TEST(Model, BoundsOfAnInstance) {
  each_is_refused(test::sample_instance(), "i",
                  {{"/uuid", "x"},
                   {"/uuid", nullptr},
                   {"/uuid", 5},
                   {"/uuid", "00000000-0000-0000-0000-000000000000"},
                   {"/name", ""},
                   {"/name", "."},
                   {"/name", ".."},
                   {"/name", "a/b"},
                   {"/name", "a b"},
                   {"/name", "\u00e4"},
                   {"/name", std::string(65, 'a')},
                   {"/name", std::string("a\0", 2)},
                   {"/hostname", std::string(256, 'a')},
                   {"/hostname", 1},
                   {"/flavor", nullptr},
                   {"/flavor", "x"},
                   {"/flavor/vcpus", 0},
                   {"/flavor/vcpus", 16385},
                   {"/flavor/vcpus", "1"},
                   {"/flavor/vcpus", -1},
                   {"/flavor/vcpus", 1.5},
                   {"/flavor/memory_mb", 0},
                   {"/flavor/memory_mb", kMaxMemoryMb + 1},
                   {"/flavor/root_gb", kMaxDiskGb + 1},
                   {"/flavor/ephemeral_gb", -1},
                   {"/flavor/swap_mb", "x"},
                   {"/flavor/extra_specs", {{"a", {1}}}},
                   {"/flavor/extra_specs", {{"a", std::string(5000, 'x')}}},
                   {"/image_properties", "x"},
                   {"/ids", 5},
                   {"/ids/first", 0},
                   {"/ids/count", 0},
                   {"/ids/first", 4294967295u - 65535u},
                   {"/ids/count", 4294967296}},
                  read_instance);
  each_is_taken(test::sample_instance(), "i",
                {{"/name", std::string(64, 'a')},
                 {"/name", "a_.-Z9"},
                 {"/hostname", nullptr},
                 {"/flavor/vcpus", 16384},
                 {"/flavor/root_gb", 0},
                 {"/flavor/root_gb", kMaxDiskGb},
                 {"/flavor/extra_specs", nullptr},
                 {"/image_properties", nullptr},
                 {"/ids", nullptr},
                 {"/ids/first", 4294967295u - 65536u}},
                read_instance);
}

TEST(Model, BoundsOfALink) {
  const auto json = test::sample_vif();
  const auto vif = read_vif(object_of(json, "v")).value();
  EXPECT_EQ(vif.ips.size(), 2u);
  EXPECT_EQ(vif.routes[1].via, "2001:db8::1");
  each_is_refused(json, "v",
                  {{"/mac", "x"},
                   {"/mac", "fa:16:3e:00:00:0g:"},
                   {"/bridge", nullptr},
                   {"/bridge", ""},
                   {"/bridge", std::string(16, 'b')},
                   {"/bridge", "a/b"},
                   {"/bridge", ".."},
                   {"/device", "a b"},
                   {"/device", std::string(16, 'd')},
                   {"/mtu", 67},
                   {"/mtu", 65536},
                   {"/ips", {1}},
                   {"/ips/0/address", "10.0.0"},
                   {"/ips/0/address", "10.0.0.5 "},
                   {"/ips/0/prefix", 33},
                   {"/ips/1/prefix", 129},
                   {"/routes/0/to", "10.0.0.0"},
                   {"/routes/0/to", "10.0.0.0/33"},
                   {"/routes/0/to", "10.0.0.0/-1"},
                   {"/routes/0/to", "10.0.0.0/8/8"},
                   {"/routes/0/via", "x"},
                   {"/dns", {"x"}},
                   {"/dns", {1}},
                   {"/dns", std::vector<std::string>(17, "10.0.0.1")}},
                  read_vif);
  each_is_taken(json, "v",
                {{"/mtu", nullptr}, {"/device", nullptr}, {"/ips", nullptr}, {"/routes/1/to", "2001:db8::/128"}},
                read_vif);
}

TEST(Model, APortOfOpenVSwitchIsKnownByItsDevice) {
  auto json = test::sample_vif();
  json["type"] = "ovs";
  EXPECT_EQ(read_vif(object_of(json, "v")).value().device, "tap-1");
  each_is_taken(json, "v", {{"/bridge", nullptr}}, read_vif);
  each_is_refused(json, "v", {{"/device", nullptr}, {"/device", ""}, {"/bridge", "a/b"}}, read_vif);
  json["type"] = "vhostuser";
  EXPECT_EQ(kind_of(read_vif(object_of(json, "v")).error()).name, "unsupported");
}

TEST(Model, BoundsOfAVolume) {
  const auto json = test::sample_volume();
  const auto read = [](const Object& object) { return read_volume(object); };
  each_is_refused(json, "v",
                  {{"/device", nullptr},
                   {"/device", "vdb"},
                   {"/device", "/dev/"},
                   {"/device", "/dev/a/b"},
                   {"/device", "/dev/.."},
                   {"/device", "/etc/vdb"},
                   {"/path", "relative"},
                   {"/path", "/a/../b"},
                   {"/path", "/a\nb"},
                   {"/path", ""},
                   {"/path", "/" + std::string(5000, 'a')},
                   {"/readonly", 1},
                   {"/shared", 1},
                   {"/boot_index", -1},
                   {"/boot_index", "0"},
                   {"/serial", std::string(256, 's')}},
                  read);
  auto root = json;
  root["boot_index"] = 0u;
  EXPECT_TRUE(read_volume(object_of(root, "v")).value().is_root);
  root["boot_index"] = 1u;
  EXPECT_FALSE(read_volume(object_of(root, "v")).value().is_root);
}

TEST(Model, AKnownVolumeGoesByItsSerial) {
  auto json = test::sample_volume();
  EXPECT_EQ(read_known_volume(object_of(json, "v")).value(), read_volume(object_of(json, "v")).value());
  for (const Json& device : {Json(""), Json()}) {
    json["device"] = device;
    const auto known = read_known_volume(object_of(json, "v")).value();
    EXPECT_EQ(known.serial, "s-1");
    EXPECT_EQ(known.path, "/dev/sdb");
    EXPECT_EQ(known.device, "");
    EXPECT_FALSE(read_volume(object_of(json, "v")));
  }
  json["serial"] = "";
  EXPECT_EQ(read_known_volume(object_of(json, "v")).error().text,
            "v.serial: needs that of the volume, where its device is not said");
}

TEST(Model, ListsAreBounded) {
  Json params = {{"network", std::vector<Json>(kMaxVifs, test::sample_vif())},
                 {"volumes", std::vector<Json>(kMaxVolumes, test::sample_volume())}};
  EXPECT_EQ(read_network(object_of(params, "p")).value().size(), kMaxVifs);
  EXPECT_EQ(read_volumes(object_of(params, "p")).value().size(), kMaxVolumes);
  params["network"].push_back(test::sample_vif());
  params["volumes"].push_back(test::sample_volume());
  EXPECT_FALSE(read_network(object_of(params, "p")));
  EXPECT_FALSE(read_volumes(object_of(params, "p")));
}

TEST(Model, OneRootIsEnough) {
  auto root = test::sample_volume();
  root["boot_index"] = 0u;
  const Json params = {{"volumes", {root, root}}};
  EXPECT_EQ(read_volumes(object_of(params, "params")).error().text,
            "params.volumes: only one volume can be the root (boot_index 0)");
}

TEST(Model, Images) {
  EXPECT_FALSE(read_image(object_of(Json{{"image", nullptr}}, "p")).value());
  for (const char* format : {"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "root-tar"})
    EXPECT_TRUE(read_image_ref(object_of(Json{{"key", "k"}, {"format", format}}, "p"))) << format;
  EXPECT_EQ(kind_of(read_image_ref(object_of(Json{{"key", "k"}, {"format", "iso"}}, "p")).error()).name,
            "image-refused");
  for (const std::string key : {"", "..", "a/b", "a.b", "a b"})
    EXPECT_FALSE(read_image_ref(object_of(Json{{"key", key}, {"format", "raw"}}, "p"))) << key;
  EXPECT_TRUE(read_image_ref(object_of(Json{{"key", std::string(200, 'k')}, {"format", "raw"}}, "p")));
  EXPECT_FALSE(read_image_ref(object_of(Json{{"key", std::string(201, 'k')}, {"format", "raw"}}, "p")));
}

TEST(Model, Files) {
  const auto params = [](const char* key, const std::string& path, const Json& more = Json::object()) {
    Json file = {{"path", path}, {"content", "aGk="}};
    file.update(more);
    return sent({{key, Json::array({file})}});
  };
  const auto good = params("files", "/etc/motd", {{"mode", 0600}});
  EXPECT_EQ(read_files(object_of(good, "p"), "files").value()[0], (FileToWrite{"/etc/motd", "hi", 0600}));
  for (const auto* path : {"etc/motd", "", "/../x", "/a/..", "/a\nb"})
    EXPECT_FALSE(read_files(object_of(params("files", path), "p"), "files")) << path;
  for (const auto* path : {"/etc/motd", "", "..", "a/../b"})
    EXPECT_FALSE(read_files(object_of(params("config_drive", path), "p"), "config_drive")) << path;
  for (const Json& more :
       {Json{{"mode", 01000}}, Json{{"mode", -1}}, Json{{"content", "?"}}, Json{{"content", nullptr}}})
    EXPECT_FALSE(read_files(object_of(params("files", "/x", more), "p"), "files")) << more.dump();
  const Json many = {{"files", std::vector<Json>(kMaxFiles + 1, good["files"][0])}};
  EXPECT_FALSE(read_files(object_of(many, "p"), "files"));
}

}  // namespace
}  // namespace virtuserns::compute
