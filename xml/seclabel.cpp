// <seclabel> and <lxc:namespace>.
#include <algorithm>

#include "xml/kept.h"
#include "xml/parts.h"

namespace virtuserns::xml {

Result<SeclabelDef> parse_seclabel(const Node& node, unsigned flags) {
  SeclabelDef label;
  label.type =
      TRY(parse_choice(node, "seclabel type", node.attribute_or("type", "dynamic"), {"none", "static", "dynamic"}));
  label.model = node.attribute_or("model");
  // virSecurityLabelDefParseXML: model 'none' can only be type 'none'.
  if (label.model == "none") label.type = "none";
  const auto relabel = TRY(node.yes_no("relabel"));
  if (label.type == "dynamic" && relabel == false)
    return node.error(VIR_ERR_CONFIG_UNSUPPORTED, "a dynamic seclabel needs relabel='yes'");
  if (label.type == "none" && relabel == true && label.model != "none")
    return node.error(VIR_ERR_CONFIG_UNSUPPORTED, "a seclabel of type 'none' cannot have relabel='yes'");
  keep_rest(node, {"type", "model", "relabel"}, {"label", "imagelabel", "baselabel"}, label.kept);
  if (label.type == "none") return label;
  label.relabel = relabel.value_or(label.type == "dynamic") ? "yes" : "no";
  const bool is_live = (flags & kParseLive) != 0;
  if (label.type == "static" || is_live) label.label = node.child("label").text();
  if (label.type == "static" && label.label.empty()) return node.error("a static seclabel needs a <label>");
  if (is_live && label.relabel == "yes") label.imagelabel = node.child("imagelabel").text();
  if (label.type == "dynamic") label.baselabel = node.child("baselabel").text();
  return label;
}

Element make_seclabel(const SeclabelDef& label) {
  Element element("seclabel");
  element.attribute("type", label.type).attribute_if("model", label.model);
  if (label.type != "none") {
    element.attribute("relabel", label.relabel.empty() ? (label.type == "dynamic" ? "yes" : "no") : label.relabel);
    element.child_if("label", label.label)
        .child_if("imagelabel", label.imagelabel)
        .child_if("baselabel", label.baselabel);
  }
  return element.kept(label.kept);
}

Result<std::vector<SharedNamespace>> parse_shared_namespaces(const Node& node) {
  std::vector<SharedNamespace> list;
  for (const Node child : node.children()) {
    SharedNamespace shared;
    shared.kind = TRY(parse_choice(child, "shared namespace", std::string(child.name()),
                                   {"sharenet", "shareipc", "shareuts"}, VIR_ERR_CONFIG_UNSUPPORTED));
    const auto type = child.attribute("type");
    if (!type) return child.error("<lxc:" + shared.kind + "> has no type: write type='name', 'pid' or 'netns'");
    shared.type = TRY(parse_choice(child, "namespace source", *type, {"none", "name", "pid", "netns"}));
    const auto value = child.attribute("value");
    if (!value) return child.error("<lxc:" + shared.kind + "> has no value");
    shared.value = *value;
    if (std::any_of(list.begin(), list.end(), [&](const SharedNamespace& s) { return s.kind == shared.kind; }))
      return child.error("<lxc:" + shared.kind + "> appears twice");
    if (shared.type != "none") list.push_back(std::move(shared));
  }
  const auto rank = [](const SharedNamespace& s) { return s.kind == "sharenet" ? 0 : s.kind == "shareipc" ? 1 : 2; };
  std::sort(list.begin(), list.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return list;
}

Element make_shared_namespaces(const std::vector<SharedNamespace>& list) {
  Element element("lxc:namespace");
  for (const auto& shared : list)
    element.child(
        std::move(Element("lxc:" + shared.kind).attribute("type", shared.type).attribute("value", shared.value)));
  return element;
}

}  // namespace virtuserns::xml
