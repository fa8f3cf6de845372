#include "tools/convert/back_xml.h"

#include <libxml/tree.h>

#include <algorithm>
#include <memory>

#include "conf/base/file.h"
#include "xml/node.h"

namespace virtuserns::convert {
namespace {

const xmlChar* text(const std::string& value) { return reinterpret_cast<const xmlChar*>(value.c_str()); }

void set(xmlNode* node, const char* name, const std::string& value) {
  xmlSetProp(node, reinterpret_cast<const xmlChar*>(name), text(value));
}

void remove(xml::Node node) {
  if (!node) return;
  xmlUnlinkNode(node.get());
  xmlFreeNode(node.get());
}

// A file of format qcow2, whatever it was.
void change_disk(xml::Node disk, const std::string& path) {
  for (const auto* gone : {"source", "backingStore", "mirror"}) remove(disk.child(gone));
  set(disk.get(), "type", "file");
  auto driver = disk.child("driver");
  if (!driver) driver = xml::Node(xmlNewChild(disk.get(), nullptr, text("driver"), nullptr));
  set(driver.get(), "name", "qemu");
  set(driver.get(), "type", "qcow2");
  set(xmlNewChild(disk.get(), nullptr, text("source"), nullptr), "file", path);
}

}  // namespace

Result<std::string> make_back_xml(const JobState& state, const std::string& folder) {
  const auto document = TRY(xml::Document::parse(state.source_xml), "the machine's definition");
  for (const auto& disk : document.root().child("devices").children("disk")) {
    const auto target = disk.child("target").attribute_or("dev");
    if (std::any_of(state.disks.begin(), state.disks.end(), [&](const auto& ours) { return ours.target == target; }))
      change_disk(disk, folder + "/" + target + ".qcow2");
  }
  xmlChar* dumped = nullptr;
  int bytes = 0;
  xmlDocDumpFormatMemory(document.get(), &dumped, &bytes, 1);
  const std::unique_ptr<xmlChar, void (*)(void*)> owner(dumped, xmlFree);
  if (!dumped) return fail(VIR_ERR_NO_MEMORY, "format the machine's definition");
  return std::string(reinterpret_cast<const char*>(dumped), static_cast<std::size_t>(bytes));
}

Result<void> write_back_xml(const JobState& state, const std::string& folder, const std::string& path) {
  return write_atomic(path, TRY(make_back_xml(state, folder)));
}

}  // namespace virtuserns::convert
